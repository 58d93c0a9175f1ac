use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn retries() -> Arc<Retries> {
    Retries::new(MINUTE, 7, Box::new(|_| {}))
}

fn digest(number: u32) -> Digest {
    Digest(u128::from(number) << 96)
}

/// What a future answers when it is polled once.
fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Has the answer written; what is handed over to its connection.
fn written(delivery: Delivery) -> Option<Digest> {
    let mut handed_over = None;
    delivery.written(|digest| handed_over = Some(digest));
    handed_over
}

/// Whether a request is a retry; it must be known without waiting.
fn is_retry(retries: &Arc<Retries>, digest: Digest) -> bool {
    match retries.look(digest) {
        // The retry's answer arrives.
        Poll::Ready(Some(delivery)) => written(delivery) == Some(digest),
        Poll::Ready(None) => false,
        Poll::Pending => panic!("undecided"),
    }
}

/// Scenario: the same bytes to another path, in another encoding, in another folder, and with the window at zero.
/// Guarantees: only the same path and folder make the same request; without a window nothing is digested.
#[test]
fn a_digest_belongs_to_its_path_and_folder() {
    let digests = |seed, window| {
        let retries = Retries::new(window, seed, Box::new(|_| {}));
        let mut digests = Vec::new();
        for signal in Signal::ALL {
            for encoding in [Encoding::Protobuf, Encoding::Json, Encoding::Ndjson] {
                digests.push(retries.digest(signal, encoding, b"the same bytes"));
            }
        }
        digests
    };
    let mut all = [digests(1, MINUTE), digests(2, MINUTE)].concat();
    assert_eq!(digests(1, MINUTE), all[..9]);
    assert!(all.iter().all(Option::is_some));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 18);
    assert!(digests(1, Duration::ZERO).iter().all(Option::is_none));
}

/// A retry's delivery, if it is known without waiting but for the one time that the task is left.
fn take_at_once(retries: &Arc<Retries>, digest: Digest) -> Option<Delivery> {
    let mut taking = pin!(retries.take(digest));
    let mut context = Context::from_waker(Waker::noop());
    assert!(taking.as_mut().poll(&mut context).is_pending());
    match taking.as_mut().poll(&mut context) {
        Poll::Ready(taken) => taken.ok(),
        Poll::Pending => panic!("undecided"),
    }
}

/// Scenario: a request's future is dropped when it first leaves the task, as hyper does where the stream was reset; an equal
/// one that came behind it goes on.
/// Guarantees: until then the second waits for the first; then it is new.
#[test]
fn who_is_reset_before_it_is_looked_at_is_not_kept() {
    let retries = retries();
    let mut context = Context::from_waker(Waker::noop());
    let mut first = Box::pin(retries.take(digest(1)));
    assert!(first.as_mut().poll(&mut context).is_pending());
    let second = async { retries.take(digest(1)).await.is_err() };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut second = pin!(second);
        for _ in 0..3 {
            assert!(poll_once(second.as_mut()).is_pending());
        }
        drop(first);
        assert!(second.await);
    });
}

/// A connection that finds, when it is looked at, that its answer was lost.
#[derive(Debug)]
struct Lost(Arc<Retries>, Digest);

impl Connection for Lost {
    fn look(&self) {
        self.0.undelivered(&[self.1]);
    }
}

/// Scenario: a request's answer is written on a connection that is lost, which nobody has noticed when the same bytes
/// come again; another one's connection is gone with all that knew of it.
/// Guarantees: the connection is looked at first: the retry is known. Of the other one nothing is.
#[test]
fn the_connection_of_an_equal_request_is_looked_at() {
    let retries = retries();
    // Each has a place of its own.
    let digest = |number: u32| digest(number << 24);
    let lost = Arc::new(Lost(Arc::clone(&retries), digest(1)));
    let connection: Weak<Lost> = Arc::downgrade(&lost);
    retries.answered(digest(1), connection);
    let gone: Weak<Lost> = Weak::new();
    retries.answered(digest(2), gone);
    for number in [0, 2, 3] {
        assert!(take_at_once(&retries, digest(number)).is_none());
    }
    let delivery = take_at_once(&retries, digest(1)).expect("stored twice");
    assert_eq!(written(delivery), Some(digest(1)));
}

/// Scenario: two requests whose digests differ only in bytes that do not choose their place.
/// Guarantees: the later one takes the place; neither is taken for the other.
#[test]
fn an_answered_request_is_not_another_one_at_its_place() {
    let answered = Answered::default();
    let lost: Arc<dyn Connection> = Arc::new(Lost(retries(), digest(0)));
    let [first, second] = [1, 2].map(Digest);
    for digest in [first, second] {
        answered.insert(digest, Arc::downgrade(&lost));
    }
    assert!(answered.get(first).is_none());
    assert!(answered.get(second).is_some());
}

/// How a committer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    Success,
    Failure,
    Dropped,
}

const COMMITS: [Commit; 3] = [Commit::Success, Commit::Failure, Commit::Dropped];

fn commit(committer: Committer<()>, how: Commit) {
    match how {
        Commit::Success => committer.finish(Ok(())),
        Commit::Failure => committer.finish(Err(())),
        Commit::Dropped => drop(committer),
    }
}

/// Scenario: the client goes away before or after the commit succeeds, fails or is given up.
/// Guarantees: remembered exactly when it was kept, whatever came first, and once.
#[test]
fn a_request_is_remembered_if_it_is_kept_and_its_client_is_gone() {
    for how in COMMITS {
        for client_goes_first in [true, false] {
            let retries = retries();
            let (committer, answer) = retries.track(Some(digest(1)));
            if client_goes_first {
                drop(answer);
                commit(committer, how);
            } else {
                commit(committer, how);
                drop(answer);
            }
            let is_kept = how == Commit::Success;
            assert_eq!(retries.len(), usize::from(is_kept), "{how:?}");
            assert_eq!(is_retry(&retries, digest(1)), is_kept, "{how:?}");
            assert!(!is_retry(&retries, digest(1)), "{how:?}: used up");
            assert!(!retries.knows_any.load(Ordering::Relaxed), "{how:?}");
        }
    }
}

/// Scenario: a kept request's answer is written, or dropped before; without a digest, too.
/// Guarantees: only the dropped one is remembered; the one that is written gives its digest to the connection.
#[test]
fn an_answer_that_is_not_written_is_remembered() {
    for number in [Some(digest(1)), None] {
        for is_written in [true, false] {
            let retries = retries();
            let (committer, answer) = retries.track::<()>(number);
            committer.finish(Ok(()));
            let Poll::Ready(Ok(delivery)) = poll_once(answer.outcome()) else {
                panic!("the outcome is told");
            };
            if is_written {
                assert_eq!(written(delivery), number);
            } else {
                drop(delivery);
            }
            let is_remembered = number.is_some() && !is_written;
            assert_eq!(retries.len(), usize::from(is_remembered));
        }
    }
}

/// Scenario: an answer is polled while it waits, and dropped in the middle of that.
/// Guarantees: as if it had been dropped unpolled.
#[test]
fn a_wait_that_is_broken_off_leaves_the_decision_to_the_committer() {
    for how in COMMITS {
        let retries = retries();
        let (committer, answer) = retries.track::<()>(Some(digest(1)));
        assert!(poll_once(answer.outcome()).is_pending());
        commit(committer, how);
        let is_kept = how == Commit::Success;
        assert_eq!(is_retry(&retries, digest(1)), is_kept, "{how:?}");
    }
}

/// Scenario: retries arrive while the request they repeat has lost its client and is not decided yet.
/// Guarantees: they wait; when it is kept one of them is answered and the other one is new, when not both are new.
#[tokio::test]
async fn a_retry_waits_for_the_request_that_it_repeats() {
    for how in COMMITS {
        let retries = retries();
        let (committer, answer) = retries.track::<()>(Some(digest(1)));
        drop(answer);
        let take = || {
            let retries = Arc::clone(&retries);
            tokio::spawn(async move {
                let delivery = retries.take(digest(1)).await.ok();
                delivery.is_some_and(|delivery| written(delivery).is_some())
            })
        };
        let (first, second) = (take(), take());
        tokio::task::yield_now().await;
        assert!(!first.is_finished() && !second.is_finished());
        assert!(
            !is_retry(&retries, digest(2)),
            "another request is not held up"
        );
        commit(committer, how);
        let retried = [first.await.unwrap(), second.await.unwrap()];
        let is_kept = how == Commit::Success;
        assert_eq!(
            retried.iter().filter(|is_retry| **is_retry).count(),
            usize::from(is_kept),
            "{how:?}"
        );
    }
}

/// Scenario: a retry is answered, and that answer is lost as well.
/// Guarantees: it is remembered again, for the next.
#[test]
fn a_retry_that_gets_no_answer_may_be_repeated() {
    let retries = retries();
    retries.undelivered(&[digest(1)]);
    for _ in 0..3 {
        let taken = retries.look(digest(1));
        assert!(matches!(taken, Poll::Ready(Some(_))));
        drop(taken);
        assert_eq!(retries.len(), 1);
    }
}

/// Scenario: two requests with the same bytes lose their answers.
/// Guarantees: each may be repeated once.
#[test]
fn equal_requests_are_counted() {
    let retries = retries();
    retries.undelivered(&[digest(1), digest(1), digest(2)]);
    let remembered: Vec<Digest> = retries.remembered().iter().map(|entry| entry.0).collect();
    assert_eq!(remembered, [digest(1), digest(1), digest(2)]);
    assert!(is_retry(&retries, digest(1)));
    assert!(is_retry(&retries, digest(1)));
    assert!(!is_retry(&retries, digest(1)));
    assert!(is_retry(&retries, digest(2)));
}

/// Scenario: requests are remembered at different times, one of them for longer.
/// Guarantees: each is forgotten at its own end, not before, not after; of equal ones the oldest is used first.
#[test]
fn a_request_is_forgotten_at_the_end_of_its_window() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut remembered = Remembered::default();
    remembered.remember(digest(1), at(10));
    remembered.remember(digest(1), at(20));
    remembered.remember(digest(2), at(5));
    let left = |remembered: &mut Remembered, now| -> Vec<(Digest, u64)> {
        let all = remembered.all(at(now)).into_iter();
        all.map(|(digest, left)| (digest, left.as_secs())).collect()
    };
    assert_eq!(
        left(&mut remembered, 4),
        [(digest(2), 1), (digest(1), 6), (digest(1), 16)]
    );
    assert_eq!(remembered.take(digest(2), at(5)), Taken::New);
    assert_eq!(remembered.take(digest(1), at(9)), Taken::Repeat);
    assert_eq!(left(&mut remembered, 9), [(digest(1), 11)]);
    assert_eq!(remembered.take(digest(1), at(19)), Taken::Repeat);
    assert_eq!(remembered.take(digest(1), at(19)), Taken::New);
    assert!(!remembered.knows_any());
    assert_eq!(
        (remembered.len(at(19)), remembered.all(at(19))),
        (0, vec![])
    );
}

/// Scenario: one request more than there is room for, the first of them remembered for the shortest time.
/// Guarantees: the one closest to its end is forgotten, and counted.
#[test]
fn what_is_remembered_is_bounded() {
    let retries = retries();
    retries.remember(digest(u32::MAX), MINUTE / 2);
    for number in 1..u32::try_from(REMEMBERED_MAX).unwrap() {
        retries.undelivered(&[digest(number)]);
    }
    assert_eq!((retries.len(), retries.forgotten()), (REMEMBERED_MAX, 0));
    retries.undelivered(&[digest(0)]);
    assert_eq!((retries.len(), retries.forgotten()), (REMEMBERED_MAX, 1));
    assert!(!is_retry(&retries, digest(u32::MAX)));
    assert!(is_retry(&retries, digest(0)) && is_retry(&retries, digest(1)));
}

/// Scenario: requests are remembered in every way, one of them by the recovery, for longer than the window.
/// Guarantees: the hook hears of each but the recovered one, before a retry can find it and outside of the lock; the
/// window is the limit.
#[test]
fn whoever_writes_it_down_is_told_of_each_new_memory() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let inner: Arc<Mutex<Option<Arc<Retries>>>> = Arc::default();
    let (hook_told, hook_inner) = (Arc::clone(&told), Arc::clone(&inner));
    let on_change = move |change| {
        // Would hang if the lock were held.
        let remembered = hook_inner.lock().unwrap().as_ref().unwrap().len();
        hook_told.lock().unwrap().push((change, remembered));
    };
    let retries = Retries::new(MINUTE, 7, Box::new(on_change));
    *inner.lock().unwrap() = Some(Arc::clone(&retries));

    retries.remember(digest(0), MINUTE * 9);
    assert!(retries.remembered()[0].1 <= MINUTE);
    retries.undelivered(&[digest(1)]);
    let (committer, answer) = retries.track::<()>(Some(digest(2)));
    drop(answer);
    committer.finish(Ok(()));
    let (committer, answer) = retries.track::<()>(Some(digest(3)));
    committer.finish(Ok(()));
    drop(answer);
    assert!(is_retry(&retries, digest(2)));
    let expected = [
        (Change::Remembered(digest(1)), 1),
        (Change::Remembered(digest(2)), 2),
        (Change::Remembered(digest(3)), 3),
        (Change::Repeated(digest(2)), 3),
    ];
    assert_eq!(*told.lock().unwrap(), expected);
    *inner.lock().unwrap() = None;
}

/// Scenario: many requests whose commit and whose client's end meet at the same instant on two threads, while a third
/// one takes what is remembered.
/// Guarantees: nothing is lost, doubled or left undecided.
#[test]
fn commit_and_loss_may_meet_at_any_instant() {
    const ROUNDS: u32 = 20_000;
    let retries = retries();
    let (send, committers) = std::sync::mpsc::sync_channel::<(u32, Committer<()>)>(1);
    let finisher = std::thread::spawn(move || {
        for (round, committer) in committers {
            commit(committer, COMMITS[round as usize % 3]);
        }
    });
    let taker = Arc::clone(&retries);
    let taker = std::thread::spawn(move || {
        let tries = (0..ROUNDS).filter(|_| match taker.look(digest(1)) {
            Poll::Ready(Some(delivery)) => written(delivery).is_some(),
            _ => false,
        });
        tries.count()
    });
    for round in 0..ROUNDS {
        let (committer, answer) = retries.track(Some(digest(1)));
        send.send((round, committer)).unwrap();
        drop(answer);
    }
    drop(send);
    finisher.join().unwrap();
    let taken = taker.join().unwrap();
    let kept = (0..ROUNDS).filter(|round| COMMITS[*round as usize % 3] == Commit::Success);
    assert_eq!(taken + retries.len(), kept.count());
    assert_eq!(retries.remembered().len(), retries.len());
    while is_retry(&retries, digest(1)) {}
    assert!(!retries.lock().remembered.knows_any());
}

#[derive(Clone, Debug)]
enum Step {
    Track(u32),
    Commit(usize, u8),
    /// The client goes away, or the answer is polled and what comes of it is written or dropped.
    Client(usize, u8),
    Take(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2_u32).prop_map(Step::Track),
        (0..8_usize, 0..3_u8).prop_map(|(of, how)| Step::Commit(of, how)),
        (0..8_usize, 0..3_u8).prop_map(|(of, how)| Step::Client(of, how)),
        (0..2_u32).prop_map(Step::Take),
    ]
}

/// A request's ends, as far as they are open.
type Ends = (Option<Committer<()>>, Option<Answer<()>>);

/// One request, as the model sees it.
#[derive(Clone, Copy, Debug)]
struct Modelled {
    digest: u32,
    commit: Option<Commit>,
    client_is_gone: bool,
}

proptest! {
    /// Scenario: requests with two digests are tracked, committed, dropped, answered and repeated in any order.
    /// Guarantees: after each step as much is remembered and undecided as the rule says; a take finds just that.
    #[test]
    fn any_order_of_events_keeps_to_the_rule(steps in prop::collection::vec(step(), 1..60)) {
        let retries = retries();
        let mut requests: Vec<(Modelled, Ends)> = Vec::new();
        let mut remembered: BTreeMap<u32, usize> = BTreeMap::from([(0, 0), (1, 0)]);
        for step in steps {
            match step {
                Step::Track(number) => {
                    let (committer, answer) = retries.track(Some(digest(number)));
                    let model = Modelled { digest: number, commit: None, client_is_gone: false };
                    requests.push((model, (Some(committer), Some(answer))));
                }
                Step::Commit(of, how) => {
                    let Some((model, (committer, _))) = requests.get_mut(of) else { continue };
                    let Some(committer) = committer.take() else { continue };
                    let how = COMMITS[usize::from(how)];
                    commit(committer, how);
                    model.commit = Some(how);
                    if model.client_is_gone && how == Commit::Success {
                        *remembered.get_mut(&model.digest).unwrap() += 1;
                    }
                }
                Step::Client(of, how) => {
                    let Some((model, (_, answer))) = requests.get_mut(of) else { continue };
                    let Some(answer) = answer.take() else { continue };
                    model.client_is_gone = true;
                    let mut is_delivered = false;
                    match how {
                        0 => drop(answer),
                        _ => match poll_once(answer.outcome()) {
                            Poll::Ready(Ok(delivery)) if how == 1 => {
                                prop_assert_eq!(written(delivery), Some(digest(model.digest)));
                                is_delivered = true;
                            }
                            Poll::Ready(outcome) => {
                                prop_assert_eq!(outcome.is_ok(), model.commit == Some(Commit::Success));
                            }
                            Poll::Pending => prop_assert_eq!(model.commit, None),
                        },
                    }
                    if model.commit == Some(Commit::Success) && !is_delivered {
                        *remembered.get_mut(&model.digest).unwrap() += 1;
                    }
                }
                Step::Take(number) => {
                    let is_undecided = requests.iter().any(|(model, _)| {
                        model.digest == number && model.client_is_gone && model.commit.is_none()
                    });
                    let count = remembered.get_mut(&number).unwrap();
                    match retries.look(digest(number)) {
                        Poll::Ready(Some(delivery)) => {
                            prop_assert!(*count > 0);
                            *count -= 1;
                            written(delivery);
                        }
                        Poll::Ready(None) => prop_assert!(*count == 0 && !is_undecided),
                        Poll::Pending => prop_assert!(*count == 0 && is_undecided),
                    }
                }
            }
            prop_assert_eq!(retries.len(), remembered.values().sum::<usize>());
        }
        drop(requests);
        while remembered.keys().any(|number| is_retry(&retries, digest(*number))) {}
        prop_assert!(!retries.knows_any.load(Ordering::Relaxed), "nothing is left undecided");
    }
}
