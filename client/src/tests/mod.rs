//! The client against servers that fail on demand.

mod examples;
mod fake;

use std::time::{Duration, Instant};

use crate::{Appended, Backoff, Client, ClientConfig, Error, Outcome, ReadOptions, Reason};
use bytes::Bytes;
use fake::{Fake, Fault, name, record};
use tokio_stream::StreamExt as _;
use zue_proto::v1;

const NO_QUORUM: Fault = Fault::Refuse(Reason::NoQuorum, Outcome::NotAppended);
const STEPPED_DOWN: Fault = Fault::Refuse(Reason::SteppedDown, Outcome::Unknown);

fn config() -> ClientConfig {
    ClientConfig {
        deadline: Duration::from_secs(5),
        attempt_timeout: Duration::from_millis(500),
        retry: Backoff { min: Duration::from_millis(1), max: Duration::from_millis(20) },
        ..ClientConfig::default()
    }
}

fn impatient() -> ClientConfig {
    ClientConfig { deadline: Duration::from_millis(300), ..config() }
}

fn client(fake: &Fake, config: ClientConfig) -> Client {
    Client::new(fake.addresses.clone(), config).unwrap()
}

fn lines(count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("line {n}"))).collect()
}

/// Appends the lines by a pipeline of small batches: the acknowledgements, and the error if it failed.
async fn pipe(client: &Client, lines: Vec<Bytes>) -> (Vec<Appended>, Option<crate::AppendError>) {
    let (appender, mut acks) = client.appender();
    tokio::spawn(async move {
        for line in lines {
            if appender.push(record(line)).await.is_err() {
                return;
            }
        }
    });
    let mut acked = Vec::new();
    while let Some(ack) = acks.next().await {
        match ack {
            Ok(ack) => acked.push(ack),
            Err(error) => return (acked, Some(error)),
        }
    }
    (acked, None)
}

async fn read(client: &Client, options: ReadOptions) -> Result<Vec<Bytes>, Error> {
    let mut records = client.read(options).records();
    let mut values = Vec::new();
    while let Some(record) = records.next().await {
        values.push(record?.value);
    }
    Ok(values)
}

#[tokio::test]
async fn a_backup_is_asked_of_a_follower_by_one_name_until_it_is_made() {
    let fake = Fake::start(3).await;
    let client = client(&fake, config());
    // None of them says that it hears the leader: that one has to.
    assert_eq!(client.back_up().await.unwrap().replica, "zue-0");
    fake.state().connected = Some(true);
    for (down, expected) in [(None, 1), (Some(1), 2)] {
        if let Some(down) = down {
            fake.state().replicas[down].is_down = true;
        }
        fake.state().asked.clear();
        let made = client.back_up().await.unwrap();
        assert_eq!((made.id.as_str(), made.end, made.replica), ("made", 7, name(expected)));
        let asked = fake.state().asked.clone();
        assert!(asked.len() == 2 && asked[0] == asked[1] && asked[0].0 == expected, "{asked:?}");
    }
}

#[tokio::test]
async fn the_leader_is_found_from_any_address() {
    let fake = Fake::start(3).await;
    for (leader, server) in [(0, 2), (1, 0), (2, 1)] {
        fake.state().leader = Some(leader);
        let client = Client::new([fake.addresses[server].clone()], config()).unwrap();
        client.append(vec![record("a")]).await.unwrap();
    }
    assert_eq!(fake.state().log.len(), 3);
}

#[tokio::test]
async fn a_leader_that_moves_is_followed() {
    let fake = Fake::start(3).await;
    let client = client(&fake, config());
    for leader in [0, 1, 2, 0] {
        fake.state().leader = Some(leader);
        client.append(vec![record("a")]).await.unwrap();
    }
}

#[tokio::test]
async fn one_append_after_the_other_goes_over_one_stream_and_few_stay_open_for_many_at_once() {
    let fake = Fake::start(1).await;
    fake.state().leader = Some(0);
    let client = client(&fake, config());
    for _ in 0..20 {
        client.append(vec![record("a")]).await.unwrap();
    }
    assert_eq!(fake.state().streams, 1);
    futures::future::join_all((0..16).map(|_| client.append(vec![record("b")]))).await;
    let open = client.idle().iter().filter(|idle| idle.line.is_some()).count();
    assert!((1..=4).contains(&open), "{open}");
}

#[tokio::test]
async fn an_append_is_kept_once_however_it_fails_on_the_way() {
    let both: [&[Fault]; 6] = [
        &[],
        &[NO_QUORUM],
        &[STEPPED_DOWN],
        &[Fault::Break, Fault::Break],
        &[Fault::AppendAndBreak, NO_QUORUM, Fault::Break],
        &[Fault::Hang, Fault::AppendAndBreak],
    ];
    for faults in both {
        let fake = Fake::start(3).await;
        let client = client(&fake, config());
        client.append(vec![record("first")]).await.unwrap();
        fake.fail(faults);
        let appended = client.append(vec![record("a"), record("b")]).await.unwrap();
        assert_eq!((appended.base_offset, appended.count), (1, 2), "{faults:?}");
        client.append(vec![record("last")]).await.unwrap();
        assert_eq!(fake.state().values(), ["first", "a", "b", "last"], "{faults:?}");
    }
}

#[tokio::test]
async fn appends_at_the_same_time_are_all_kept_once() {
    let fake = Fake::start(3).await;
    let client = client(&fake, config());
    fake.fail(&[Fault::AppendAndBreak, NO_QUORUM, Fault::Break, Fault::AppendAndBreak, STEPPED_DOWN]);
    let appends = (0..100).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { client.append(vec![record(format!("{n:03}"))]).await.unwrap().base_offset })
    });
    let mut offsets = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        offsets.push(append.await.unwrap());
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..100).collect::<Vec<u64>>());
    let mut values = fake.state().values();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), 100);
}

#[tokio::test]
async fn an_append_that_was_refused_throughout_is_told_to_be_absent() {
    let fake = Fake::start(1).await;
    fake.fail(&[NO_QUORUM; 500]);
    let begun = Instant::now();
    let error = client(&fake, impatient()).append(vec![record("a")]).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!((error.is_unknown, error.error.reason()), (false, Some(Reason::NoQuorum)));
    assert!(error.error.is_retriable());
    assert_eq!(error.error.server(), Some("zue-0"));
    assert!(error.to_string().ends_with("zue-0: as asked for; the records were not appended"), "{error}");
}

#[tokio::test]
async fn an_append_that_may_be_in_the_log_is_told_so() {
    let fake = Fake::start(1).await;
    fake.fail(&[Fault::AppendAndBreak]);
    fake.fail(&[NO_QUORUM; 500]);
    let error = client(&fake, impatient()).append(vec![record("a")]).await.unwrap_err();
    assert!(error.is_unknown, "{error}");
    assert_eq!(fake.state().log.len(), 1);
}

#[tokio::test]
async fn what_cannot_succeed_is_not_tried_again() {
    let fake = Fake::start(1).await;
    fake.fail(&[Fault::Refuse(Reason::TooLarge, Outcome::NotAppended)]);
    let client = client(&fake, config());
    let error = client.append(vec![record("a")]).await.unwrap_err();
    assert_eq!((error.error.reason(), error.is_unknown), (Some(Reason::TooLarge), false));
    client.append(vec![record("b")]).await.unwrap();
    assert_eq!(fake.state().values(), ["b"]);
}

#[tokio::test]
async fn an_append_of_a_forgotten_producer_that_may_be_in_the_log_is_looked_for_there() {
    let fake = Fake::start(1).await;
    let client = client(&fake, config());
    client.append(vec![record("a")]).await.unwrap();
    fake.fail(&[Fault::Forget]);
    assert!(!client.append(vec![record("b")]).await.unwrap().duplicate);
    fake.fail(&[Fault::AppendAndBreak, Fault::Forget]);
    let found = client.append(vec![record("c"), record("d")]).await.unwrap();
    assert_eq!((found.base_offset, found.count, found.duplicate), (2, 2, true));
    fake.fail(&[Fault::Break, Fault::Forget]);
    let new = client.append(vec![record("e")]).await.unwrap();
    assert_eq!((new.base_offset, new.duplicate), (4, false));
    assert_eq!(fake.state().values(), ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn an_append_that_may_have_been_compacted_away_stays_unknown() {
    let fake = Fake::start(1).await;
    let client = client(&fake, config());
    client.append(vec![record("a")]).await.unwrap();
    fake.fail(&[Fault::AppendAndBreak, Fault::Forget]);
    fake.state().compacted = Some(1);
    let keyed = v1::NewRecord { key: Some("k".into()), ..record("b") };
    let error = client.append(vec![keyed]).await.unwrap_err();
    assert_eq!((error.error.reason(), error.is_unknown), (Some(Reason::UnknownProducer), true));
    assert_eq!(error.id.map(|id| id.sequence), Some(1));
    assert!(error.to_string().contains("compacted"), "{error}");
    assert_eq!(fake.state().values(), ["a", "b"]);
}

#[tokio::test]
async fn appends_go_on_in_a_log_that_was_begun_anew() {
    for anew in [Fault::Anew, Fault::Forget] {
        let fake = Fake::start(1).await;
        let client = client(&fake, config());
        client.append(vec![record("a"), record("b")]).await.unwrap();
        fake.fail(&[anew]);
        client.append(vec![record("c")]).await.unwrap();
        let expected: &[&str] = if anew == Fault::Anew { &["c"] } else { &["a", "b", "c"] };
        assert_eq!(fake.state().values(), expected);
    }
}

#[tokio::test]
async fn an_append_whose_outcome_is_unknown_is_repeated_under_its_name_by_another_client() {
    let fake = Fake::start(1).await;
    for (fault, base_offset, is_duplicate) in [(Fault::AppendAndBreak, 0, true), (Fault::Break, 1, false)] {
        let mut faults = vec![fault];
        faults.extend([Fault::Hang; 9]);
        fake.fail(&faults);
        let error = client(&fake, impatient()).append(vec![record("a")]).await.unwrap_err();
        let id = error.id.filter(|_| error.is_unknown).unwrap();
        assert!(error.to_string().contains(&format!("repeated as {id}, they are kept once")), "{error}");
        fake.state().faults.clear();
        let other = client(&fake, config());
        let again = other.append_again(id, vec![record("a")]).await.unwrap();
        assert_eq!((again.base_offset, again.duplicate, again.id), (base_offset, is_duplicate, id));
        fake.fail(&[Fault::Forget]);
        let once_more = other.append_again(id, vec![record("a")]).await.unwrap();
        assert_eq!((once_more.base_offset, once_more.duplicate), (base_offset, true), "the log itself tells");
    }
    assert_eq!(fake.state().values(), ["a", "a"]);
}

/// Lets faults happen while the rest of a pipeline comes again.
async fn pipe_again(faults: &[Fault]) {
    let fake = Fake::start(1).await;
    let first = client(&fake, ClientConfig { batch_records_max: 7, in_flight_max: 4, ..config() });
    let (acked, error) = pipe(&first, lines(60)).await;
    assert_eq!(error, None);
    let known = acked[1].id;
    fake.fail(faults);
    let (appender, mut acks) = client(&fake, config()).appender_again(known);
    let rest = usize::try_from(known.sequence).unwrap();
    tokio::spawn(async move {
        for line in lines(200).split_off(rest) {
            appender.push(record(line)).await.unwrap();
        }
    });
    let (mut end, mut duplicates) = (known.sequence, 0);
    while let Some(ack) = acks.next().await {
        let ack = ack.unwrap();
        assert_eq!(ack.base_offset, end, "{faults:?}");
        end += u64::from(ack.count);
        duplicates += if ack.duplicate { u64::from(ack.count) } else { 0 };
    }
    assert_eq!((end, duplicates), (200, 60 - known.sequence), "{faults:?}");
    assert_eq!(fake.state().values(), lines(200), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_goes_on_from_an_append_whose_outcome_is_unknown_and_keeps_every_line_once() {
    let faults: [&[Fault]; 4] =
        [&[], &[Fault::Forget], &[NO_QUORUM, Fault::Break, Fault::Forget], &[Fault::AppendAndBreak, Fault::Forget]];
    for faults in faults {
        pipe_again(faults).await;
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_reached_is_named_with_its_replica_and_the_remedy() {
    let fake = Fake::start(2).await;
    fake.state().advertised[0] = "127.0.0.1:1".to_owned();
    fake.state().leader = Some(0);
    let client_of = |address: &String| Client::new([address.clone()], impatient()).unwrap();
    let error = client_of(&fake.addresses[1]).append(vec![record("a")]).await.unwrap_err().to_string();
    for fact in ["zue-0 leads", "127.0.0.1:1", "refused", "`advertise`", "not appended"] {
        assert!(error.contains(fact), "{fact}: {error}");
    }
    // With an address at which the leader can be reached, what it advertises does not matter.
    client(&fake, config()).append(vec![record("a")]).await.unwrap();
}

#[tokio::test]
async fn too_few_voters_to_elect_a_leader_are_told_so_and_no_address_is_blamed() {
    let fake = Fake::start(3).await;
    {
        let mut state = fake.state();
        (state.replicas[0].is_down, state.replicas[2].is_down, state.connected) = (true, true, Some(false));
    }
    let error = client(&fake, impatient()).append(vec![record("a")]).await.unwrap_err().to_string();
    assert!(error.contains("2 of 3 voters do not answer (zue-0, zue-2)") && !error.contains("advertise"), "{error}");
}

#[tokio::test]
async fn what_is_tried_again_and_again_can_be_asked_for_while_it_lasts() {
    let fake = Fake::start(1).await;
    let client = client(&fake, config());
    assert_eq!(client.trouble(), None);
    fake.fail(&[NO_QUORUM; 20]);
    let appending = tokio::spawn({
        let client = client.clone();
        async move { client.append(vec![record("a")]).await }
    });
    let trouble = loop {
        if let Some(trouble) = client.trouble() {
            break trouble;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(trouble.last.reason(), Some(Reason::NoQuorum));
    appending.await.unwrap().unwrap();
    assert_eq!(client.trouble(), None);
}

#[tokio::test]
async fn nobody_there_is_told_with_every_address() {
    let client = Client::new(["127.0.0.1:1", "127.0.0.1:2"], impatient()).unwrap();
    let error = client.append(vec![record("a")]).await.unwrap_err();
    assert!(!error.is_unknown);
    let error = error.to_string();
    for fact in ["no server answers", "127.0.0.1:1", "127.0.0.1:2", "refused"] {
        assert!(error.contains(fact), "{fact}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_keeps_every_line_once_and_in_order_whatever_breaks() {
    let broken = [
        Fault::AppendAndBreak,
        NO_QUORUM,
        Fault::Break,
        STEPPED_DOWN,
        Fault::AppendAndBreak,
        Fault::AppendAndBreak,
        Fault::Hang,
        NO_QUORUM,
    ];
    let fake = Fake::start(3).await;
    let config = ClientConfig { batch_records_max: 7, in_flight_max: 4, ..config() };
    fake.fail(&broken);
    let moving = fake.clone();
    tokio::spawn(async move {
        for leader in [1, 2, 0, 1] {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut state = moving.state();
            (state.leader, state.epoch) = (Some(leader), state.epoch + 1);
        }
    });
    let (acked, error) = pipe(&client(&fake, config), lines(5_000)).await;
    assert_eq!(error, None);
    assert_eq!(fake.state().values(), lines(5_000));
    let mut end = 0;
    for appended in acked {
        assert_eq!(appended.base_offset, end);
        end += u64::from(appended.count);
    }
    assert_eq!(end, 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_whose_producer_is_forgotten_before_anything_was_lost_goes_on_with_another() {
    let fake = Fake::start(1).await;
    fake.fail(&[Fault::Forget]);
    let (_, error) = pipe(&client(&fake, config()), lines(100)).await;
    assert_eq!(error, None);
    assert_eq!(fake.state().values(), lines(100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_whose_producer_is_forgotten_with_batches_in_doubt_looks_for_them_and_goes_on() {
    let all: [&[Fault]; 3] = [
        &[Fault::AppendAndBreak, Fault::Forget],
        &[Fault::Break, Fault::Forget],
        &[Fault::AppendAndBreak, NO_QUORUM, Fault::AppendAndBreak, Fault::Forget, Fault::AppendAndBreak, Fault::Forget],
    ];
    for faults in all {
        let fake = Fake::start(1).await;
        fake.fail(faults);
        let config = ClientConfig { batch_records_max: 7, in_flight_max: 4, ..config() };
        let (acked, error) = pipe(&client(&fake, config), lines(100)).await;
        assert_eq!(error, None, "{faults:?}");
        assert_eq!(fake.state().values(), lines(100), "{faults:?}");
        let mut end = 0;
        for appended in acked {
            assert_eq!(appended.base_offset, end, "{faults:?}");
            end += u64::from(appended.count);
        }
        assert_eq!(end, 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_gives_up_at_the_deadline() {
    let fake = Fake::start(1).await;
    fake.fail(&vec![NO_QUORUM; 5_000]);
    let begun = Instant::now();
    let (acked, error) = pipe(&client(&fake, impatient()), lines(100)).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    let error = error.unwrap();
    assert_eq!((acked.len(), error.error.reason()), (0, Some(Reason::NoQuorum)));
}

#[tokio::test]
async fn a_reading_goes_on_with_another_replica_from_where_it_was() {
    let fake = Fake::start(3).await;
    let client = client(&fake, config());
    client.append(lines(20).into_iter().map(record).collect()).await.unwrap();
    for replica in &mut fake.state().replicas {
        replica.read_max = Some(3);
    }
    assert_eq!(read(&client, ReadOptions::default()).await.unwrap(), lines(20));
    let some = ReadOptions { from: 5, max: Some(9), ..ReadOptions::default() };
    assert_eq!(read(&client, some).await.unwrap(), lines(20)[5..14]);
}

#[tokio::test]
async fn a_replica_that_lags_is_asked_again_and_never_ends_a_reading_early() {
    let fake = Fake::start(2).await;
    let client = client(&fake, config());
    client.append(lines(20).into_iter().map(record).collect()).await.unwrap();
    fake.state().replicas[0].read_max = Some(15);
    fake.state().replicas[1].has = Some(10);
    let catch_up = fake.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        catch_up.state().replicas[0].is_down = true;
        catch_up.state().replicas[1].has = None;
    });
    assert_eq!(read(&client, ReadOptions::default()).await.unwrap(), lines(20));
}

#[tokio::test]
async fn a_reading_goes_on_soon_when_a_leader_that_hangs_was_replaced() {
    let fake = Fake::start(3).await;
    let patient =
        ClientConfig { attempt_timeout: Duration::from_mins(1), deadline: Duration::from_mins(1), ..config() };
    let client = client(&fake, patient);
    client.append(lines(20).into_iter().map(record).collect()).await.unwrap();
    {
        let mut state = fake.state();
        (state.replicas[0].read_max, state.replicas[0].hangs) = (Some(3), true);
    }
    let mut reader = client.read(ReadOptions::default());
    for _ in 0..3 {
        reader.next().await.unwrap().unwrap();
    }
    {
        let mut state = fake.state();
        (state.leader, state.epoch) = (Some(1), 2);
    }
    let begun = Instant::now();
    assert_eq!(reader.next().await.unwrap().unwrap().records[0].offset, 3);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_leader_that_is_elected_while_one_address_is_silent_is_found_at_once() {
    let fake = Fake::start(3).await;
    fake.state().leader = None;
    fake.state().replicas[0].hangs = true;
    let patient = ClientConfig { attempt_timeout: Duration::from_mins(1), ..config() };
    let client = client(&fake, patient);
    let (begun, elected) = (Instant::now(), Duration::from_millis(400));
    let appended = tokio::spawn(async move { client.append(vec![record("a")]).await });
    tokio::time::sleep(elected).await;
    (fake.state().leader, fake.state().epoch) = (Some(1), 2);
    appended.await.unwrap().unwrap();
    let took = begun.elapsed().saturating_sub(elected);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_gap_ends_a_reading_and_names_both_offsets() {
    let fake = Fake::start(1).await;
    let client = client(&fake, config());
    client.append(lines(5).into_iter().map(record).collect()).await.unwrap();
    fake.state().replicas[0].skips = Some(3);
    let error = read(&client, ReadOptions::default()).await.unwrap_err();
    assert_eq!(error, Error::Gap { server: name(0), expected: 3, found: 4 });
}

#[tokio::test]
async fn a_reading_from_beyond_the_end_is_refused_at_once() {
    let fake = Fake::start(1).await;
    let options = ReadOptions { from: 7, ..ReadOptions::default() };
    let error = read(&client(&fake, config()), options).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::OffsetOutOfRange));
}

#[tokio::test]
async fn a_named_replica_is_read_and_no_other() {
    let fake = Fake::start(3).await;
    let client = client(&fake, impatient());
    client.append(lines(20).into_iter().map(record).collect()).await.unwrap();
    fake.state().replicas[2].has = Some(4);
    let from = |replica: &str| ReadOptions { replica: Some(replica.to_owned()), ..ReadOptions::default() };
    assert_eq!(read(&client, from("zue-2")).await.unwrap(), lines(4));
    fake.state().replicas[2].is_down = true;
    let error = read(&client, from("zue-2")).await.unwrap_err();
    assert!(error.to_string().contains("zue-2 does not answer"), "{error}");
    fake.state().replicas[2].is_down = false;
    let error = read(&client, from("zue-9")).await.unwrap_err();
    assert_eq!(error.to_string(), "no replica is named \"zue-9\"; known are: zue-0, zue-1, zue-2");
}

#[tokio::test]
async fn reads_go_on_while_nobody_leads() {
    let fake = Fake::start(3).await;
    let client = client(&fake, config());
    client.append(lines(3).into_iter().map(record).collect()).await.unwrap();
    {
        let mut state = fake.state();
        state.leader = None;
        (state.replicas[0].is_down, state.replicas[1].has) = (true, Some(1));
    }
    assert_eq!(read(&client, ReadOptions::default()).await.unwrap(), lines(3));
}

#[tokio::test]
async fn a_status_tells_also_of_replicas_that_do_not_answer() {
    let fake = Fake::start(3).await;
    fake.state().replicas[1].is_down = true;
    let status = Client::new([fake.addresses[0].clone()], config()).unwrap().status().await;
    let answers: Vec<_> = status.iter().map(|one| (one.name.clone().unwrap(), one.answer.is_ok())).collect();
    assert_eq!(answers, [(name(0), true), (name(1), false), (name(2), true)]);
}
