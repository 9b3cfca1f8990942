//! A caller that is not believed, or does not believe a node, is told so at once, with what to do about it; and whose certificate or token
//! is replaced notices nothing.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use bytes::Bytes;
use zue_client::{Client, ClientConfig, NewRecord, Tls, Token};
use zue_tests::identities::{Identities, LIFE, write};
use zue_tests::programs::{Process, free_ports, zue};
use zue_tests::replicas::{eventually, eventually_async};
use zue_tls::{Authority, Cluster, Kind, Names, NewToken};

const SOON: Duration = Duration::from_secs(30);
/// Whoever tries until the deadline takes longer.
const AT_ONCE: Duration = Duration::from_secs(8);
const DEADLINE: &str = "25s";

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// One node, with whatever is needed for TLS in its folder.
struct Dev {
    folder: tempfile::TempDir,
    base: u16,
    _cluster: Process,
}

impl Dev {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (data, base) = (folder.path().join("data"), free_ports(1, 10, 3));
        let args = ["dev", "--data", text(&data), "--replicas", "1", "--tls", "--port", &base.to_string()];
        let cluster = Process::start("zue", &args, &folder.path().join("dev.log"));
        cluster.expect_line("ready", SOON);
        Self { folder, base, _cluster: cluster }
    }

    fn file(&self, name: &str) -> String {
        text(&self.folder.path().join("data/tls").join(name)).to_owned()
    }

    fn server(&self) -> String {
        format!("127.0.0.1:{}", self.base)
    }
}

#[test]
fn who_is_not_believed_or_does_not_believe_is_told_so_at_once() {
    let dev = Dev::start();
    let theirs = Identities::of("theirs");
    let alien = theirs.folder_of("client", &theirs.client("dev", LIFE));
    let [alien_ca, alien_cert, alien_key] =
        ["ca.crt", "tls.crt", "tls.key"].map(|name| text(&alien.join(name)).to_owned());
    let [ca, cert, key] = ["client/ca.crt", "client/tls.crt", "client/tls.key"].map(|name| dev.file(name));
    let ours = Cluster::new("dev", "zue").expect("it is a name");
    let unsigned = Authority::new(Kind::Client, &ours, LIFE).expect("it can be made");
    let unsigned = unsigned.issue(&ours.client("dev").expect("it is a name"), &Names::default(), LIFE);
    let unsigned = theirs.folder_of("unsigned", &unsigned.expect("it can be issued"));
    let [unsigned_cert, unsigned_key] = ["tls.crt", "tls.key"].map(|name| text(&unsigned.join(name)).to_owned());
    let token = dev.folder.path().join("token");
    std::fs::write(&token, NewToken::make().expect("it can be made").text.as_str()).expect("it can be written");
    let run = |server: &str, flags: &[&str], args: &[&str]| -> (Output, Duration) {
        let begun = Instant::now();
        let output = zue(server, &[flags, &["--deadline", DEADLINE], args].concat(), b"");
        (output, begun.elapsed())
    };
    let own = ["--ca", &ca, "--cert", &cert, "--key", &key];
    let appended = || run(&dev.server(), &own, &["append", "x"]).0.status.success().then_some(());
    eventually(SOON, appended, || "its own client appends".to_owned());
    let peers = format!("127.0.0.1:{}", dev.base + 1);
    let (own_server, token) = (dev.server(), text(&token));
    for (server, flags, told) in [
        // Who answers is of another cluster: by its authority, and by its name.
        (
            &own_server,
            &["--ca", &alien_ca, "--cert", &alien_cert, "--key", &alien_key][..],
            &["is not trusted by the authorities in", "ca.crt", "/node", "zue --ca FILE"][..],
        ),
        (
            &own_server,
            &["--ca", &alien_ca, "--token-file", token],
            &["is not trusted by the authorities in", "zue --ca FILE"],
        ),
        (
            &own_server,
            &["--ca", &ca, "--cert", &alien_cert, "--key", &alien_key],
            &["spiffe://zue.io/dev/zue/node, and one of a node of test/theirs is expected"],
        ),
        // Who asks is not believed.
        (
            &own_server,
            &["--ca", &ca, "--cert", &unsigned_cert, "--key", &unsigned_key],
            &["spiffe://zue.io/dev/zue/client/dev", "none of the authorities that are trusted here has signed it"],
        ),
        (&own_server, &["--ca", &ca, "--token-file", token], &["wrong, or was revoked", "--token-file FILE"]),
        (&own_server, &["--ca", &ca], &["the call shows no certificate and no token", "--cert FILE"]),
        // A client does not get into the port of the nodes.
        (&peers, &own, &["does not believe the certificate", "--cert FILE"]),
    ] {
        for args in [&["append", "x"][..], &["read"], &["trim", "--before", "1"]] {
            let (output, took) = run(server, flags, args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{flags:?} {args:?}");
            for told in told {
                assert!(said.contains(told), "{told}: {args:?} {said}");
            }
            // The end of a connection may overtake the alert that says why; then it takes another try.
            let within = if *server == peers { AT_ONCE * 3 } else { AT_ONCE };
            assert!(took < within, "{flags:?} {args:?} took {took:?}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_token_is_replaced_goes_on_appending() {
    let dev = Dev::start();
    let tokens: Vec<NewToken> = (0..4).map(|_| NewToken::make().expect("it can be made")).collect();
    let allow = |tokens: &[&NewToken]| {
        let hashes = tokens.iter().map(|token| token.sha256.as_str()).collect::<Vec<_>>().join(", ");
        let list = format!("clients: [{{name: till, rights: [append, read], tokenSha256: [{hashes}]}}]\n");
        write(Path::new(&dev.file("access.yaml")), &list);
    };
    let path = dev.folder.path().join("token");
    let (mut shown, rest) = tokens.split_first().expect("there are some");
    write(&path, &shown.text);
    allow(&[shown]);
    let tls = Tls::files(Path::new(&dev.file("client/ca.crt")), None).expect("the file is there");
    let config = |token: Token| ClientConfig { tls: Some(tls.clone()), token: Some(token), ..ClientConfig::default() };
    let client = Client::new([dev.server()], config(Token::file(&path).expect("it is one"))).expect("it is an address");
    let record = || vec![NewRecord { value: Bytes::from_static(b"x"), ..NewRecord::default() }];
    let appended = async || client.append(record()).await.is_ok().then_some(());
    eventually_async(SOON, appended, || "its token counts".to_owned()).await;
    for next in rest {
        allow(&[shown, next]);
        let other = config(Token::text(&next.text).expect("it is one"));
        let other = Client::new([dev.server()], other).expect("it is an address");
        let counts = async || other.end().await.is_ok().then_some(());
        eventually_async(SOON, counts, || "the next token counts".to_owned()).await;
        write(&path, &next.text);
        allow(&[next]);
        // Until the one before counts no more, and after that.
        let other = config(Token::text(&shown.text).expect("it is one"));
        let other = Client::new([dev.server()], other).expect("it is an address");
        let is_revoked = async || {
            client.append(record()).await.expect("it goes on");
            other.end().await.is_err().then_some(())
        };
        eventually_async(SOON, is_revoked, || "the one before is revoked".to_owned()).await;
        for _ in 0..20 {
            client.append(record()).await.expect("it goes on");
        }
        shown = next;
    }
}
