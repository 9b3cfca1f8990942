//! Writes the inputs that the targets begin with: `seeds DIR` makes DIR/TARGET/N.

fn main() -> std::io::Result<()> {
    let dir = std::env::args_os().nth(1).map(std::path::PathBuf::from).unwrap_or_default();
    for target in ["record", "batch", "segment", "index"] {
        std::fs::create_dir_all(dir.join(target))?;
        for (n, seed) in zue_fuzz::seeds(target).iter().enumerate() {
            std::fs::write(dir.join(target).join(n.to_string()), seed)?;
        }
    }
    Ok(())
}
