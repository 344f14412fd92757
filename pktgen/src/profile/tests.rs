//! Each profile against its source, with a fixed seed.

use super::*;

const SEED: u64 = 20_260_801;
const SECOND: u64 = 1_000_000_000;

fn settings(sources: u32, load_pps: f64) -> Settings {
    Settings {
        sources,
        load_pps,
        line_bps: 10e9,
        period: None,
        framing: Framing::UDP_IPV4,
        seed: SEED,
    }
}

fn traffic(profile: Profile, sources: u32, load_pps: f64) -> Traffic {
    Traffic::new(profile, settings(sources, load_pps)).unwrap_or_else(|e| panic!("{e}"))
}

fn sizes(profile: Profile, count: usize) -> Vec<u64> {
    let mut sizes: Vec<u64> = traffic(profile, 1, 1e5)
        .source(0)
        .take(count)
        .map(|m| m.bytes)
        .collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn means_of_the_distributions_are_those_of_the_sources() {
    // (profile, mean bytes, tolerance of a published, rounded figure)
    let cases = [
        (Profile::WebSearch, 1.71e6, 0.005),
        (Profile::Hadoop, 120e3, 0.02),
        (Profile::Storage, 41e3, 0.02),
        (Profile::DataMining, 7.5e6, 0.02),
    ];
    for (profile, mean, tolerance) in cases {
        let own = profile.sizes().unwrap().mean_bytes();
        assert!((own / mean - 1.0).abs() < tolerance, "{profile}: {own} against {mean}");
    }
}

#[test]
fn drawn_sizes_have_the_percentiles_and_the_mean_of_their_source() {
    const COUNT: usize = 400_000;
    // (profile, (percent, bytes), tolerance of the mean: what is left of chance in so many, by the tail's weight)
    type Percentiles = &'static [(f64, f64)];
    let cases: [(Profile, Percentiles, f64); 9] = [
        (
            Profile::GoogleRpc2008,
            &[(50.0, 258.0), (90.0, 1_720.0), (99.0, 31e3)],
            0.1,
        ),
        (
            Profile::GoogleRpcRequest,
            &[(50.0, 1_530.0), (90.0, 11_800.0), (99.0, 196_000.0)],
            0.03,
        ),
        (
            Profile::GoogleRpcResponse,
            &[(10.0, 188.0), (50.0, 315.0), (90.0, 10_000.0), (99.0, 563_000.0)],
            0.03,
        ),
        (
            Profile::WebSearch,
            &[(15.0, 10e3), (30.0, 30e3), (60.0, 200e3), (80.0, 2e6), (90.0, 5e6)],
            0.01,
        ),
        (
            Profile::Hadoop,
            &[
                (20.0, 400.0),
                (50.0, 700.0),
                (60.0, 1e3),
                (72.0, 30e3),
                (90.0, 120e3),
                (97.5, 1e6),
            ],
            0.03,
        ),
        (
            Profile::Storage,
            &[(22.93, 4e3), (69.21, 8e3), (90.47, 32e3), (96.77, 128e3)],
            0.02,
        ),
        (
            Profile::DataMining,
            &[(40.0, 1_460.0), (60.0, 2_920.0), (80.0, 10_220.0), (95.0, 3_076_220.0)],
            0.06,
        ),
        (
            Profile::Cache,
            &[(30.0, 1_460.0), (50.0, 18_980.0), (80.0, 1_946_180.0), (90.0, 2_920e3)],
            0.02,
        ),
        (Profile::LlmTokens, &[(50.0, 149.5)], 0.01),
    ];
    for (profile, percentiles, tolerance) in cases {
        let sizes = sizes(profile, COUNT);
        for &(percent, bytes) in percentiles {
            // Within a third of a percent of the ranks: what is drawn below and above must enclose the source's figure.
            let at = |percent: f64| sizes[(COUNT as f64 * percent / 100.0) as usize] as f64;
            let (below, above) = (at(percent - 0.33), at(percent + 0.33));
            assert!(
                below <= bytes * 1.001 && bytes <= above * 1.001,
                "{profile} seed {SEED}: p{percent} {below}..{above}"
            );
        }
        let mean = sizes.iter().map(|&b| b as f64).sum::<f64>() / COUNT as f64;
        let own = profile.sizes().unwrap().mean_bytes();
        assert!(
            (mean / own - 1.0).abs() < tolerance,
            "{profile} seed {SEED}: {mean} against {own}"
        );
    }
    assert_eq!(
        sizes(Profile::GoogleRpcRequest, 1_000)[0].max(64),
        sizes(Profile::GoogleRpcRequest, 1_000)[0]
    );
}

#[test]
fn the_load_is_the_asked_one() {
    // (profile, load, seconds, tolerance): by how heavy the tail is. Whole days for serverless.
    let cases = [
        (Profile::GoogleRpcRequest, 1e6, 20, 0.04),
        (Profile::GoogleRpcResponse, 1e6, 20, 0.06),
        (Profile::GoogleRpc2008, 1e6, 3, 0.06),
        (Profile::WebSearch, 1e6, 60, 0.04),
        (Profile::Hadoop, 1e6, 20, 0.04),
        (Profile::Storage, 1e6, 10, 0.02),
        (Profile::DataMining, 2e6, 200, 0.2),
        (Profile::Cache, 1e6, 20, 0.03),
        (Profile::AiTraining, 1e6, 2, 1e-4),
        (Profile::Checkpoint, 1e6, 2, 1e-4),
        (Profile::Serverless, 1e6, 48, 0.03),
        (Profile::LlmTokens, 2e4, 20, 0.02),
        (Profile::FlowChurn, 1e5, 2, 1e-4),
        (Profile::Microbursts, 1e5, 60, 0.03),
        (Profile::Incast, 1e5, 2, 0.01),
        (Profile::AllMinimum, 1e5, 2, 1e-4),
        (Profile::BurstyUdp, 1e6, 20, 0.03),
    ];
    assert_eq!(cases.len(), Profile::ALL.len());
    for (profile, load_pps, seconds, tolerance) in cases {
        let traffic = traffic(profile, 8, load_pps);
        let payload = u64::from(Framing::UDP_IPV4.payload_bytes());
        let until = seconds * SECOND;
        let in_time = traffic.messages().take_while(|(_, message)| message.at.0 < until);
        let (packets, bytes, frames) = in_time.fold((0u64, 0u64, 0u64), |(packets, bytes, frames), (_, message)| {
            // Frames are counted without walking through them: full ones, and the last.
            let full = (message.bytes - 1) / payload;
            let last = Framing::UDP_IPV4.frame_bytes((message.bytes - full * payload) as u16);
            (
                packets + full + 1,
                bytes + message.bytes,
                frames + full * 1518 + u64::from(last),
            )
        });
        let sent = packets as f64 / seconds as f64;
        assert!(
            (sent / load_pps - 1.0).abs() < tolerance,
            "{profile} seed {SEED}: {sent} against {load_pps}"
        );
        let mean_frame = frames as f64 / packets as f64;
        let own = profile.mean_frame(Framing::UDP_IPV4, 10e9).bytes;
        assert!(
            (mean_frame / own - 1.0).abs() < tolerance.max(1e-3),
            "{profile}: frames of {mean_frame} against {own}"
        );
        assert!(bytes > 0);
    }
}

#[test]
fn sources_repeat_by_seed_and_differ_from_each_other() {
    for profile in Profile::ALL {
        let traffic = traffic(profile, 4, 1e5);
        let take = |index: u32| traffic.source(index).take(500).collect::<Vec<_>>();
        assert_eq!(take(1), take(1), "{profile}");
        assert!(take(2).is_sorted_by_key(|message| message.at), "{profile}");
        assert!(take(2).iter().all(|message| message.bytes > 0), "{profile}");
        let phased = profile.parts_of_period() > 0 || profile == Profile::Incast;
        assert_eq!(
            take(0) == take(1),
            phased,
            "{profile}: only what is in phase is the same in all sources"
        );
        let other = Traffic::new(
            profile,
            Settings {
                seed: SEED + 1,
                ..*traffic.settings()
            },
        )
        .unwrap();
        let random = !(phased || matches!(profile, Profile::AllMinimum | Profile::FlowChurn));
        assert_eq!(
            other.source(0).take(500).collect::<Vec<_>>() != take(0),
            random,
            "{profile}"
        );
    }
}

#[test]
fn training_is_on_and_off_at_line_rate_in_phase() {
    // 8 sources at 40 % of 10 Gbit/s: 812,743 full frames a second are the line.
    let share = 0.4;
    let line_pps = 10e9 / 8.0 / 1538.0;
    let period = Nanos(10_000_000);
    let settings = Settings {
        period: Some(period),
        ..settings(8, 8.0 * share * line_pps)
    };
    let traffic = Traffic::new(Profile::AiTraining, settings).unwrap();
    let mut on = 0;
    for (source, packet) in traffic.packets().take_while(|(_, packet)| packet.at.0 < 10 * period.0) {
        let within = packet.at.0 % period.0;
        assert!(
            within < (share * period.0 as f64) as u64 + 2_000,
            "source {source} sends {within} ns into its period"
        );
        assert_eq!(packet.frame_bytes, 1518);
        on += 1;
    }
    assert!((f64::from(on) / (8.0 * share * line_pps * 0.1) - 1.0).abs() < 1e-3);
    let firsts: Vec<Nanos> = (0..8).map(|i| traffic.source(i).nth(3).unwrap().at).collect();
    assert!(firsts.iter().all(|&at| at == Nanos(3 * period.0)));
    // Every packet of a source follows the one before in the time of one frame.
    let source = Packets::new(traffic.source(0), Framing::UDP_IPV4, 10e9);
    let instants: Vec<u64> = source.take(1_000).map(|packet| packet.at.0).collect();
    assert!(
        instants
            .windows(2)
            .all(|pair| (1_230..=1_231).contains(&(pair[1] - pair[0])))
    );
}

#[test]
fn checkpoints_stay_in_the_idle_half() {
    let traffic = traffic(Profile::Checkpoint, 2, 4e5);
    let period = traffic.period().0;
    for (_, packet) in traffic.packets().take_while(|(_, packet)| packet.at.0 < 20 * period) {
        assert!(packet.at.0 % period >= period / 2, "{packet:?}");
    }
    let parts = traffic.source(0).take_while(|message| message.at.0 < period).count();
    assert_eq!(parts, 8);
}

#[test]
fn serverless_swings_by_4_3_and_has_spikes() {
    let traffic = traffic(Profile::Serverless, 4, 4e6 * 0.2);
    let day = 24 * SECOND;
    // Calls by the hour, over ten days.
    let mut hours = [0u32; 24];
    let mut busiest = 0;
    let mut recent = std::collections::VecDeque::new();
    for message in traffic.source(0).take_while(|message| message.at.0 < 10 * day) {
        hours[(message.at.0 % day / SECOND) as usize] += 1;
        recent.push_back(message.at.0);
        while recent.front().is_some_and(|&at| at + 1_000_000 < message.at.0) {
            recent.pop_front();
        }
        busiest = busiest.max(recent.len());
    }
    let trough = f64::from(hours[0] + hours[23]);
    let peak = f64::from(hours[11] + hours[12]);
    // An hour either side of the extremes rounds them off: 4.3 becomes 4.26.
    assert!(
        (peak / trough / 4.26 - 1.0).abs() < 0.06,
        "seed {SEED}: {peak} to {trough}"
    );
    assert!(busiest >= 100, "a spike has 100 calls in a millisecond: {busiest}");
}

#[test]
fn sessions_stream_tokens_at_10_to_100_a_second() {
    let traffic = traffic(Profile::LlmTokens, 1, 10_000.0);
    let mut answers = std::collections::HashMap::<u64, Vec<u64>>::new();
    for message in traffic.source(0).take_while(|message| message.at.0 < 120 * SECOND) {
        assert!((50..=250).contains(&message.bytes));
        answers.entry(message.flow).or_default().push(message.at.0);
    }
    let mut tokens = Vec::new();
    for instants in answers.values() {
        for pair in instants.windows(2) {
            assert!((9_999_999..=100_000_001).contains(&(pair[1] - pair[0])), "{pair:?}");
        }
        // Those cut by the beginning or the end have not all their tokens.
        if instants[0] > 4 * SECOND && instants[0] < 20 * SECOND {
            tokens.push(instants.len());
        }
    }
    tokens.sort_unstable();
    let median = tokens[tokens.len() / 2] as f64;
    assert!(
        (median / 129.0 - 1.0).abs() < 0.25,
        "seed {SEED}: {median} of {} answers",
        tokens.len()
    );
}

#[test]
fn hostile_profiles_are_what_they_say() {
    let churn = traffic(Profile::FlowChurn, 2, 1e5);
    let flows: std::collections::HashSet<u64> = churn.source(1).take(10_000).map(|message| message.flow).collect();
    assert_eq!(flows.len(), 10_000);
    let minimum = traffic(Profile::AllMinimum, 4, 1e6);
    let packets: Vec<Packet> = minimum.packets().take(1_000).map(|(_, packet)| packet).collect();
    assert!(packets.iter().all(|packet| packet.frame_bytes == 64));
    assert!(packets.windows(2).all(|pair| pair[1].at.0 - pair[0].at.0 == 1_000));
    let bursts = traffic(Profile::Microbursts, 1, 1e5);
    let first: Vec<Packet> = bursts
        .packets()
        .map(|(_, packet)| packet)
        .take_while(|p| p.message == 0)
        .collect();
    let length = first[first.len() - 1].at.0 - first[0].at.0;
    assert!((97_000..100_000).contains(&length), "{length} ns at line rate");
    let incast = traffic(Profile::Incast, 32, 1e6);
    let together: Vec<(u32, Message)> = incast.messages().take(32).collect();
    assert!(
        together
            .iter()
            .all(|(_, message)| message.at == together[0].1.at && message.bytes == 32 * 1024)
    );
}

#[test]
fn messages_are_cut_into_full_packets_and_a_rest() {
    let frames = |bytes| segment(bytes, Framing::UDP_IPV4).collect::<Vec<_>>();
    assert!(frames(0).is_empty());
    assert_eq!(frames(1), [64]);
    assert_eq!(frames(18), [64]);
    assert_eq!(frames(19), [65]);
    assert_eq!(frames(1_472), [1_518]);
    assert_eq!(frames(1_473), [1_518, 64]);
    assert_eq!(frames(3_000), [1_518, 1_518, 102]);
    let tagged = Framing {
        vlan_tags: 1,
        header_bytes: 48,
        frame_bytes_min: 88,
        ..Framing::UDP_IPV4
    };
    assert_eq!(segment(1_453, tagged).collect::<Vec<_>>(), [1_522, 88]);
    assert_eq!(
        segment(u64::MAX, Framing::UDP_IPV4).size_hint().0 as u64,
        u64::MAX.div_ceil(1_472)
    );
}

#[test]
fn the_registry_is_complete() {
    let mut names = std::collections::HashSet::new();
    for profile in Profile::ALL {
        let entry = profile.entry();
        assert!(names.insert(entry.name), "{} twice", entry.name);
        assert_eq!(entry.name.parse::<Profile>(), Ok(profile));
        assert_eq!(serde_json::to_string(&profile).unwrap(), format!("\"{}\"", entry.name));
        assert!(!entry.description.is_empty() && !entry.source.is_empty());
    }
    assert_eq!(Profile::list().count(), Profile::ALL.len());
    let error = "hadop".parse::<Profile>().unwrap_err().to_string();
    assert!(error.contains("hadop") && error.contains("hadoop"), "{error}");
}

#[test]
fn impossible_settings_are_named() {
    let good = settings(8, 1e5);
    let cases = [
        ("sources", Profile::Hadoop, Settings { sources: 0, ..good }),
        ("load_pps", Profile::Hadoop, Settings { load_pps: 0.0, ..good }),
        (
            "load_pps",
            Profile::Hadoop,
            Settings {
                load_pps: f64::NAN,
                ..good
            },
        ),
        (
            "line_bps",
            Profile::Hadoop,
            Settings {
                line_bps: f64::INFINITY,
                ..good
            },
        ),
        (
            "mtu",
            Profile::Hadoop,
            Settings {
                framing: Framing {
                    mtu: 28,
                    ..good.framing
                },
                ..good
            },
        ),
        (
            "period",
            Profile::Serverless,
            Settings {
                period: Some(Nanos(0)),
                ..good
            },
        ),
        ("period", Profile::AiTraining, Settings { load_pps: 10.0, ..good }),
        (
            "period",
            Profile::Checkpoint,
            Settings {
                load_pps: 500.0,
                ..good
            },
        ),
        ("at most", Profile::AiTraining, Settings { load_pps: 1e7, ..good }),
        ("50 %", Profile::Checkpoint, Settings { load_pps: 5e6, ..good }),
        ("lower the load", Profile::WebSearch, Settings { load_pps: 1e7, ..good }),
    ];
    for (part, profile, settings) in cases {
        let error = Traffic::new(profile, settings).unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains(profile.name()),
            "{part}: {error}"
        );
    }
}

#[test]
fn reports_state_what_is_assumed_and_what_was_scaled() {
    let report = traffic(Profile::AiTraining, 8, 1e6).report();
    assert_eq!(
        (report.period_ns, report.mean_frame_bytes),
        (Some(100_000_000), 1_518.0)
    );
    let json = serde_json::to_value(traffic(Profile::WebSearch, 8, 1e5).report()).unwrap();
    assert_eq!(json["profile"]["name"], "web-search");
    assert!(
        json["profile"]["source"]
            .as_str()
            .is_some_and(|source| source.contains("DCTCP"))
    );
    assert_eq!(json["period_ns"], serde_json::Value::Null);
    let messages = json["messages_per_second"].as_f64().unwrap();
    assert!((messages * json["mean_packets"].as_f64().unwrap() / 1e5 - 1.0).abs() < 1e-12);
}
