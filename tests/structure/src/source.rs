//! The files of a crate, and what can be counted in each by itself.

use std::path::Path;
use std::process::Command;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A crate: a folder with a `lib.rs` or a `main.rs`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// A name for people: its folder, without `src`.
    pub name: String,
    /// The folder of its root file, below the checkout.
    pub folder: String,
}

/// One source file.
pub(crate) struct File {
    /// Below the checkout.
    pub(crate) path: String,
    /// The module that it is: the names from the crate's root on.
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

/// Figures of one file.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) fields: Vec<(String, usize)>,
    pub(crate) functions: Vec<(String, usize)>,
    pub(crate) asserts: usize,
}

fn listed(checkout: &Path) -> Vec<String> {
    let listed =
        Command::new("git").args(["ls-files", "-co", "--exclude-standard", "*.rs"]).current_dir(checkout).output();
    let listed = String::from_utf8(listed.expect("git runs").stdout).expect("paths are text");
    listed.lines().filter(|path| checkout.join(path).is_file()).map(str::to_owned).collect()
}

/// The crates of a checkout, by their folders.
pub fn roots(checkout: &Path) -> Vec<Root> {
    let folder = |path: &String| {
        let (folder, file) = path.rsplit_once('/')?;
        let is_root = matches!(file, "lib.rs" | "main.rs") && (folder.ends_with("src") || folder.contains("src/bin/"));
        is_root.then(|| folder.to_owned())
    };
    let mut folders: Vec<String> = listed(checkout).iter().filter_map(folder).collect();
    folders.sort();
    folders.dedup();
    let name = |folder: &str| folder.trim_end_matches("/src").replace("/src/bin/", " bin ");
    folders.into_iter().map(|folder| Root { name: name(&folder), folder }).collect()
}

/// The files of a crate, without tests.
pub(crate) fn files(checkout: &Path, root: &Root) -> Vec<File> {
    let inside = |path: &String| {
        let below = path.strip_prefix(&root.folder)?.strip_prefix('/')?;
        let is_other = below.starts_with("bin/") && !root.folder.contains("/bin");
        let is_test = below.contains("tests/") || below.ends_with("tests.rs");
        (!is_other && !is_test && below != "main.rs" || below == "main.rs" && is_only_main(checkout, root))
            .then(|| below.to_owned())
    };
    let file = |path: String| {
        let below = inside(&path)?;
        let text = std::fs::read_to_string(checkout.join(&path)).expect("a file of the checkout is text");
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut module: Vec<String> = below.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            module.pop();
        }
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        Some(File { path, module, text, syntax })
    };
    listed(checkout).into_iter().filter_map(file).collect()
}

/// Returns whether the crate has no library of which `main.rs` would be a second root.
fn is_only_main(checkout: &Path, root: &Root) -> bool {
    !checkout.join(&root.folder).join("lib.rs").is_file()
}

pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::NameValue(_) => false,
    })
}

/// Counts in a file, its tests left out.
pub(crate) fn count(syntax: &syn::File) -> Counts {
    let mut counts = Counts::default();
    counts.visit_file(syntax);
    counts
}

impl Counts {
    fn function(&mut self, name: &syn::Ident, from: proc_macro2::Span, to: proc_macro2::Span) {
        let lines = to.end().line.saturating_sub(from.start().line) + 1;
        self.functions.push((name.to_string(), lines));
    }
}

impl<'ast> Visit<'ast> for Counts {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        if let syn::Fields::Named(fields) = &item.fields {
            self.fields.push((item.ident.to_string(), fields.named.len()));
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig.ident, item.sig.span(), item.block.span());
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, item.sig.span(), item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_macro(&mut self, macro_: &'ast syn::Macro) {
        let name = macro_.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        self.asserts += usize::from(name.trim_start_matches("debug_").starts_with("assert"));
    }
}

/// The first word of each doc comment.
pub(crate) fn openings(text: &str) -> impl Iterator<Item = &str> {
    let is_comment = |line: &str| line.trim_start().starts_with("///") || line.starts_with("//!");
    let mut was_comment = false;
    text.lines().filter_map(move |line| {
        let (was, is) = (was_comment, is_comment(line));
        was_comment = is;
        let words = line.trim_start().trim_start_matches(['/', '!']);
        (is && !was).then(|| words.split_whitespace().next().unwrap_or_default())
    })
}
