//! A port of a pod, forwarded to this machine: nothing runs in the pod for it, and no NetworkPolicy is in its way.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::calls::{Kubectl, not_started};

/// The time that a pod may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer that are kept: far above what a node has to tell.
const ANSWER_MAX: u64 = 32 << 20;

/// Ended when dropped.
struct Forward(Child);

impl Drop for Forward {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Gets the content that a pod serves at a path of a port by HTTP.
///
/// # Errors
/// When it is not reached, answers with anything but 200, or takes longer than ten seconds.
pub(super) fn get(kubectl: &Kubectl, pod: &str, port: u16, path: &str) -> anyhow::Result<Vec<u8>> {
    let end = Instant::now() + WITHIN;
    let (pod, port) = (format!("pod/{pod}"), format!(":{port}"));
    let mut command = kubectl.command(&["port-forward", "--address=127.0.0.1", &pod, &port]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut forward = Forward(command.spawn().map_err(not_started)?);
    let (said, output) = (forward.0.stderr.take(), forward.0.stdout.take().context("kubectl has no output")?);
    let (sender, lines) = mpsc::channel();
    // Until it is ended: it must be able to say what it does.
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let Ok(line) = lines.recv_timeout(WITHIN) else {
        drop(forward);
        let mut text = String::new();
        said.map(|said| said.take(4096).read_to_string(&mut text));
        anyhow::bail!("kubectl port-forward {pod} {port} does not listen: {}", text.trim());
    };
    let address = local(&line).with_context(|| format!("kubectl port-forward says {line:?}"))?;
    let mut stream = TcpStream::connect_timeout(&address, WITHIN).context("cannot connect to kubectl port-forward")?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = vec![];
    let mut chunk = [0; 16 << 10];
    while u64::try_from(answer.len()).is_ok_and(|read| read < ANSWER_MAX) {
        let left = end.saturating_duration_since(Instant::now());
        anyhow::ensure!(!left.is_zero(), "{pod} did not answer whole within {} s", WITHIN.as_secs());
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut chunk).with_context(|| format!("{pod} does not answer"))?;
        if read == 0 {
            break;
        }
        answer.extend(chunk.iter().take(read));
    }
    body(answer)
}

/// The address that it listens on, by its first line: `Forwarding from 127.0.0.1:34567 -> 9442`.
fn local(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("Forwarding from ")?.split(' ').next()?.parse().ok()
}

/// The body of an HTTP answer.
fn body(mut answer: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("the answer is no HTTP")?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer);
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.split(' ').nth(1) == Some("200"), "the answer is {status}");
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_local_port() {
        let local = |line| local(line).map(|address| address.to_string());
        assert_eq!(local("Forwarding from 127.0.0.1:34567 -> 9442").as_deref(), Some("127.0.0.1:34567"));
        assert_eq!(local("error: unable to forward"), None);
    }

    #[test]
    fn of_an_answer_the_body_is_given_and_anything_but_200_is_refused() {
        let body = |answer: &str| body(answer.as_bytes().to_vec()).map_err(|error| error.to_string());
        assert_eq!(body("HTTP/1.0 200 OK\r\na: b\r\n\r\nup 1\n\r\n\r\n"), Ok(b"up 1\n\r\n\r\n".to_vec()));
        assert_eq!(body("HTTP/1.0 404 Not Found\r\n\r\n"), Err("the answer is HTTP/1.0 404 Not Found".to_owned()));
        body("HTTP/1.0 200").unwrap_err();
    }
}
