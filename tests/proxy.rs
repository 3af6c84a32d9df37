//! The proxy that tampers with Kafka's protocol, against a server that only frames and echoes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::proxy::{ApiKey, Count, Direction, Proxy};
use crate::support::trial;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("proxy_passes_and_counts_frames", passes),
        trial("proxy_swallows_the_chosen_request", request_lost),
        trial(
            "proxy_swallows_a_response_after_its_request_arrived",
            response_lost,
        ),
        trial("proxy_repeats_a_request_and_answers_once", repeated),
        trial(
            "proxy_holds_a_request_longer_than_its_client_lives",
            outlived,
        ),
        trial("proxy_keeps_the_order_behind_a_held_frame", in_order),
        trial("proxy_cuts_in_place_of_a_frame", cut),
        trial("proxy_holds_everything_until_it_goes_on", half_open),
        trial("proxy_delays_by_a_seed", slowed),
        trial("proxy_refuses_what_is_not_kafka", foreign),
    ]
}

/// What the broker saw: the correlation ids of its requests, in order.
struct Echo {
    proxy: Proxy,
    port: u16,
    seen: Receiver<i32>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut proxy = Proxy::new();
        let port = proxy
            .forward_to(listener.local_addr().unwrap().port())
            .unwrap();
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let mut client = client;
                    while let Some(frame) = read(&mut client) {
                        let correlation = i32::from_be_bytes(frame[4..8].try_into().unwrap());
                        // The test may be over.
                        let _ = sender.send(correlation);
                        let _ = write(&mut client, &frame[4..]);
                    }
                });
            }
        });
        Self { proxy, port, seen }
    }

    fn client(&self) -> Client {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(socket)
    }

    /// The next request that the broker gets.
    fn arrived(&self) -> i32 {
        self.seen.recv_timeout(PATIENCE).expect("a request arrives")
    }
}

struct Client(TcpStream);

impl Client {
    fn ask(&mut self, api: ApiKey, correlation: i32) {
        let mut frame = api.number().to_be_bytes().to_vec();
        frame.extend(1i16.to_be_bytes());
        frame.extend(correlation.to_be_bytes());
        frame.extend(b"a body");
        write(&mut self.0, &frame).unwrap();
    }

    /// The correlation id of the next answer; none when the connection has ended.
    fn answer(&mut self) -> Option<i32> {
        read(&mut self.0).map(|frame| i32::from_be_bytes(frame[..4].try_into().unwrap()))
    }
}

fn read(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn write(to: &mut TcpStream, frame: &[u8]) -> std::io::Result<()> {
    let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
    bytes.extend(frame);
    to.write_all(&bytes)
}

fn passes() {
    let echo = Echo::start();
    let (mut a, mut b) = (echo.client(), echo.client());
    a.ask(ApiKey::Produce, 7);
    b.ask(ApiKey::EndTxn, 7);
    assert_eq!((a.answer(), b.answer()), (Some(7), Some(7)));
    a.ask(ApiKey::Other(99), 8);
    assert_eq!(a.answer(), Some(8));
    for api in [ApiKey::Produce, ApiKey::EndTxn, ApiKey::Other(99)] {
        for direction in [Direction::Request, Direction::Response] {
            echo.proxy.wait_for_passed(api, direction, 1);
            let once = Count { seen: 1, passed: 1 };
            assert_eq!(
                echo.proxy.count(api, direction),
                once,
                "{api:?} {direction:?}"
            );
        }
    }
}

fn request_lost() {
    let echo = Echo::start();
    let rule = echo.proxy.on(ApiKey::EndTxn).requests().nth(2).swallow();
    let mut client = echo.client();
    for (api, correlation) in [
        (ApiKey::EndTxn, 1),
        (ApiKey::Produce, 2),
        (ApiKey::EndTxn, 3),
        (ApiKey::EndTxn, 4),
    ] {
        client.ask(api, correlation);
    }
    let answers = [client.answer(), client.answer(), client.answer()];
    assert_eq!(answers, [Some(1), Some(2), Some(4)]);
    let arrived = [echo.arrived(), echo.arrived(), echo.arrived()];
    assert_eq!(arrived, [1, 2, 4]);
    assert_eq!(rule.hits(), 1);
    let count = echo.proxy.count(ApiKey::EndTxn, Direction::Request);
    assert_eq!(count, Count { seen: 3, passed: 2 });
}

fn response_lost() {
    let echo = Echo::start();
    let rule = echo.proxy.on(ApiKey::EndTxn).responses().first(1).swallow();
    let mut client = echo.client();
    client.ask(ApiKey::EndTxn, 1);
    client.ask(ApiKey::EndTxn, 2);
    assert_eq!(client.answer(), Some(2));
    assert_eq!([echo.arrived(), echo.arrived()], [1, 2]);
    rule.wait_for_hits(1);
}

fn repeated() {
    let echo = Echo::start();
    echo.proxy
        .on(ApiKey::Produce)
        .containing("body")
        .nth(1)
        .duplicate();
    let mut client = echo.client();
    client.ask(ApiKey::Produce, 1);
    client.ask(ApiKey::Produce, 2);
    assert_eq!([client.answer(), client.answer()], [Some(1), Some(2)]);
    let arrived = [echo.arrived(), echo.arrived(), echo.arrived()];
    assert_eq!(arrived, [1, 1, 2]);
}

fn outlived() {
    let echo = Echo::start();
    let held = echo.proxy.on(ApiKey::EndTxn).requests().nth(1).hold();
    let mut gone = echo.client();
    gone.ask(ApiKey::EndTxn, 1);
    held.wait_for_hits(1);
    drop(gone);
    // The retry on a new connection overtakes it.
    let mut client = echo.client();
    client.ask(ApiKey::EndTxn, 2);
    assert_eq!(client.answer(), Some(2));
    held.release();
    assert_eq!([echo.arrived(), echo.arrived()], [2, 1]);
}

fn in_order() {
    let echo = Echo::start();
    let held = echo.proxy.on(ApiKey::EndTxn).responses().hold();
    let mut client = echo.client();
    client.ask(ApiKey::EndTxn, 1);
    client.ask(ApiKey::Fetch, 2);
    assert_eq!([echo.arrived(), echo.arrived()], [1, 2]);
    let count = echo.proxy.count(ApiKey::Fetch, Direction::Response);
    assert_eq!(count.passed, 0);
    held.release();
    assert_eq!([client.answer(), client.answer()], [Some(1), Some(2)]);
}

fn cut() {
    let echo = Echo::start();
    let rule = echo.proxy.on(ApiKey::InitProducerId).responses().cut();
    let mut client = echo.client();
    client.ask(ApiKey::InitProducerId, 1);
    assert_eq!(echo.arrived(), 1);
    assert_eq!(client.answer(), None);
    rule.release();
    assert_eq!(echo.proxy.connections(), 0);
    let mut client = echo.client();
    client.ask(ApiKey::InitProducerId, 2);
    assert_eq!(client.answer(), Some(2));
    echo.proxy.refuse_everything();
    assert_eq!((client.answer(), echo.client().answer()), (None, None));
}

fn half_open() {
    let echo = Echo::start();
    let mut before = echo.client();
    before.ask(ApiKey::Fetch, 1);
    assert_eq!(before.answer(), Some(1));
    assert_eq!(echo.arrived(), 1);
    echo.proxy.hold_everything();
    before.ask(ApiKey::Fetch, 2);
    let mut after = echo.client();
    after.ask(ApiKey::Fetch, 3);
    let silence = echo.seen.recv_timeout(Duration::from_millis(100));
    assert!(silence.is_err(), "{silence:?} came through");
    echo.proxy.go_on();
    assert_eq!((before.answer(), after.answer()), (Some(2), Some(3)));
    echo.proxy.hold_link(0);
    before.ask(ApiKey::Fetch, 4);
    echo.proxy.go_on();
    assert_eq!(before.answer(), Some(4));
}

fn slowed() {
    let echo = Echo::start();
    let (latency, jitter) = (Duration::from_millis(30), Duration::from_millis(20));
    echo.proxy.slow_down(latency, jitter, 5);
    echo.proxy
        .on(ApiKey::Fetch)
        .requests()
        .nth(1)
        .delay(Duration::from_millis(40));
    let mut client = echo.client();
    let began = Instant::now();
    client.ask(ApiKey::Fetch, 1);
    assert_eq!(client.answer(), Some(1));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(100), "only {took:?}");
}

fn foreign() {
    let echo = Echo::start();
    let mut client = echo.client();
    client.0.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).unwrap();
    assert_eq!(client.answer(), None);
    let complaints = echo.proxy.complaints();
    assert!(complaints[0].contains("not Kafka"), "{complaints:?}");
}
