//! Tables swapped under workers at work: each sees only newer ones, every one is freed once all have left it, and what was
//! counted meanwhile adds up.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use af_xdp::{Umem, UmemConfig};
use common::{checked, two_ports};
use control::compile::Compiler;
use control::publish::{Publisher, wait_for};
use dataplane::checksum;
use dataplane::clock::Nanos;
use dataplane::frame::{FramePool, Packet};
use dataplane::lane::{Lane, WireEnds};
use dataplane::path::PortShare;
use dataplane::port::MemoryPort;
use dataplane::worker::{CurrentTable, Worker, WorkerShared};
use jiff::Timestamp;

const WORKERS: usize = 3;
const SWAPS: usize = 1_000;

/// With one, two or three contracts, and a port rate every other time.
fn config(number: usize) -> config::Config {
    let rate = number.is_multiple_of(2).then_some("1 Gbit/s");
    let mut text = two_ports(rate) + "[[class]]\nname = \"only\"\npriority = 1\n";
    for service in 0..=number % 3 {
        text += &format!(
            "[[service]]\nname = \"s{service}\"\nendpoints = [\"10.{service}.0.0/16\"]\n[[contract]]\nservice = \"s{service}\"\nclass = \"only\"\nregion = \"here\"\ndirection = \"egress\"\nrate = \"100 Mbit/s\"\n"
        );
    }
    checked(&text)
}

fn packet(service: u8) -> Vec<u8> {
    let mut header = vec![
        0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, service, 0, 1, 192, 0, 2, 1,
    ];
    let sum = checksum::ipv4_header_checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&[2; 12][..], &[8, 0], &header, &[0, 9, 0, 9, 0, 26, 0, 0], &[0; 18]].concat()
}

/// Turns until told to stop; every packet comes from one of three services. Returns how many went in and came out.
fn work(
    number: usize,
    tables: &CurrentTable,
    shares: &[Arc<PortShare>; 2],
    shared: &Arc<WorkerShared>,
    stop: &AtomicBool,
) -> [u64; 2] {
    let umem_config = UmemConfig {
        frame_count: 256,
        prefault: false,
        ..UmemConfig::default()
    };
    let (umem, frames) = Umem::new(&umem_config).unwrap();
    let ends = WireEnds {
        ports: [0, 1],
        shares: shares.clone(),
        seed: 1,
    };
    let lane = Lane::new(number, &ends, MemoryPort::new(256), MemoryPort::new(256));
    let mut worker = Worker::new(vec![lane], umem, FramePool::new(frames), tables, shared.clone(), 32);
    let packets = [0, 1, 2].map(packet);
    let (mut now, mut generation, mut sent, mut left) = (Nanos(1), 0, 0, 0);
    let mut last = false;
    while !last {
        // One more turn after the word to stop, so that the last table is seen too.
        last = stop.load(Ordering::Acquire);
        now = now.plus(Nanos(20_000));
        for bytes in packets.iter().cycle().take(20) {
            let (umem, pool) = worker.pool();
            let Some(mut frame) = pool.take() else { break };
            assert!(umem.set_len(&mut frame, bytes.len()));
            umem.bytes_mut(&mut frame).copy_from_slice(bytes);
            worker.lanes_mut()[0].ports_mut()[0].arrive(Packet::whole(frame));
            sent += 1;
        }
        worker.turn(now);
        let seen = shared.generation();
        assert!(
            seen >= generation,
            "worker {number} went back from table {generation} to {seen}"
        );
        generation = seen;
        while let Some(packet) = worker.lanes_mut()[0].ports_mut()[1].departed() {
            let (umem, pool) = worker.pool();
            let mut frame = packet.frame;
            umem.reset(&mut frame);
            pool.put(frame);
            left += 1;
        }
        assert_eq!(worker.frames(), 256);
    }
    [sent, left]
}

#[test]
fn a_thousand_tables_under_three_workers() {
    let mut compiler = Compiler::new(WORKERS, Nanos(100_000));
    let configs = [0, 1, 2, 3, 4, 5].map(config);
    let first = compiler.compile(&configs[0], Timestamp::UNIX_EPOCH).unwrap();
    let mut freed_later = vec![Arc::downgrade(&first.table)];
    let mut publisher = Publisher::new(first.table);
    let shareds: Vec<Arc<WorkerShared>> = (0..WORKERS).map(|_| Arc::new(WorkerShared::new(1))).collect();
    let shares = [0, 1].map(|_| Arc::new(PortShare::new()));
    let (tables, stop) = (publisher.current(), AtomicBool::new(false));
    let totals = std::thread::scope(|scope| {
        let run = |number: usize| {
            let (tables, shares, shared, stop) = (&tables, &shares, &shareds[number], &stop);
            move || work(number, tables, shares, shared, stop)
        };
        let threads: Vec<_> = (0..WORKERS).map(|number| scope.spawn(run(number))).collect();
        let mut most_held = 0;
        for swap in 1..=SWAPS {
            let compiled = compiler
                .compile(&configs[swap % configs.len()], Timestamp::UNIX_EPOCH)
                .unwrap();
            freed_later.push(Arc::downgrade(&compiled.table));
            publisher.publish(compiled.table);
            most_held = most_held.max(publisher.retire(shareds.iter().map(|shared| &**shared)));
            // While others still count, what has been counted is one moment's: it closes.
            assert!(
                shareds
                    .iter()
                    .all(|shared| shared.ledgers[0][0].read().unaccounted() == 0)
            );
            if swap.is_multiple_of(50) {
                assert!(
                    wait_for(&shareds, 1 + swap as u64, Duration::from_secs(20)),
                    "swap {swap}"
                );
                assert_eq!(publisher.retire(shareds.iter().map(|shared| &**shared)), 0);
                let alive = freed_later.iter().filter(|table| table.strong_count() > 0).count();
                assert_eq!(alive, 1, "after swap {swap}");
            }
        }
        stop.store(true, Ordering::Release);
        println!("at most {most_held} tables were held");
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let table = tables.load_full();
    assert_eq!(table.generation, 1 + SWAPS as u64);
    for (number, ([sent, left], shared)) in totals.iter().zip(&shareds).enumerate() {
        let ledger = shared.ledgers[0][0].read();
        let dropped: u64 = ledger.dropped.iter().map(|amount| amount.packets).sum();
        assert_eq!(ledger.received.packets, *sent);
        assert_eq!(ledger.forwarded.packets, *left);
        assert_eq!(ledger.held.packets, sent - left - dropped);
        // Seven entries there ever were: three contracts, uncontracted and other both ways.
        let judged: u64 = (0..7)
            .map(|slot| table.cells.of(number).cell(dataplane::cells::SlotId(slot)))
            .map(|cell| cell.conforming.get().packets + cell.nonconforming.get().packets)
            .sum();
        assert_eq!(judged, *sent, "worker {number}");
    }
}
