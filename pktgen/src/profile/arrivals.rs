//! When the messages of one source come.

use dataplane::clock::Nanos;

use super::random::Random;
use super::registry::CHECKPOINT_BUSY_SHARE;
use super::sessions::Sessions;
use super::sizes::Distribution;
use super::{Message, Profile, Traffic};

/// The messages of one source: never ends, and no instant is before the one that came before.
#[derive(Clone, Debug)]
pub struct Messages {
    random: Random,
    /// Messages so far.
    count: u64,
    arrivals: Arrivals,
    flows: Flows,
}

#[derive(Clone, Debug)]
enum Arrivals {
    /// Each message at random, independent of the others.
    Poisson {
        at: f64,
        mean_gap: f64,
        sizes: Sizes,
    },
    /// Message i at `phase` + i * `gap` nanoseconds.
    Even {
        phase: f64,
        gap: f64,
        bytes: u64,
    },
    /// In each period so many packets on the average, whole ones, in `parts` messages from `begin` to the period's end.
    Periodic {
        period: u64,
        begin: f64,
        parts: u64,
        packets: f64,
        payload: u64,
    },
    /// At line rate for exponential times, with exponential times between.
    OnOff {
        at: f64,
        mean_on: f64,
        mean_off: f64,
        line_pps: f64,
        payload: u64,
    },
    /// Poisson with a rate that swings around its mean once in a day, and now and then a spike of calls.
    Diurnal {
        at: f64,
        /// Between two events at the peak.
        peak_gap: f64,
        day: f64,
        /// Calls of the spike that are still to come.
        spike_left: u32,
        sizes: &'static Distribution,
    },
    Sessions(Sessions),
}

#[derive(Clone, Copy, Debug)]
enum Sizes {
    Drawn(&'static Distribution),
    Fixed(u64),
}

/// Which flow a message belongs to.
#[derive(Clone, Copy, Debug)]
enum Flows {
    One,
    /// Each message is one.
    New,
    /// One of so many that stay, at random.
    Among(u64),
}

impl Messages {
    pub(super) fn new(traffic: &Traffic, index: u32) -> Self {
        let mut random = Random::new(traffic.settings().seed, u64::from(index));
        let arrivals = Arrivals::new(traffic, index, &mut random);
        let flows = match traffic.profile() {
            Profile::GoogleRpcRequest | Profile::GoogleRpcResponse | Profile::GoogleRpc2008 => Flows::Among(100),
            Profile::Serverless => Flows::Among(1_000),
            Profile::AiTraining | Profile::Checkpoint | Profile::Incast => Flows::One,
            Profile::AllMinimum | Profile::BurstyUdp => Flows::One,
            Profile::WebSearch | Profile::Hadoop | Profile::Storage | Profile::DataMining => Flows::New,
            Profile::Cache | Profile::FlowChurn | Profile::Microbursts | Profile::LlmTokens => Flows::New,
        };
        Self {
            random,
            count: 0,
            arrivals,
            flows,
        }
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let i = self.count;
        self.count += 1;
        if let Arrivals::Sessions(sessions) = &mut self.arrivals {
            return sessions.next(&mut self.random);
        }
        let (at, bytes) = self.arrivals.next(i, &mut self.random);
        let flow = match self.flows {
            Flows::One => 0,
            Flows::New => i,
            Flows::Among(flows) => self.random.next() % flows,
        };
        Some(Message {
            at: Nanos(at),
            bytes,
            flow,
        })
    }
}

impl Arrivals {
    fn new(traffic: &Traffic, index: u32, random: &mut Random) -> Self {
        let profile = traffic.profile();
        let settings = traffic.settings();
        let payload = u64::from(settings.framing.payload_bytes());
        let fixed = profile.fixed_bytes(settings.framing, settings.line_bps);
        let mean_gap = traffic.mean_gap_ns();
        let period = traffic.period().0;
        let periodic = |begin_share: f64| Arrivals::Periodic {
            period,
            begin: period as f64 * begin_share,
            parts: profile.parts_of_period(),
            packets: traffic.source_pps() * period as f64 / 1e9,
            payload,
        };
        match profile {
            Profile::AiTraining => periodic(0.0),
            Profile::Checkpoint => periodic(CHECKPOINT_BUSY_SHARE),
            Profile::Incast => Arrivals::Even {
                phase: 0.0,
                gap: mean_gap,
                bytes: fixed,
            },
            Profile::FlowChurn | Profile::AllMinimum => {
                // Sources take turns, so that all together are even too.
                let phase = mean_gap * f64::from(index) / f64::from(settings.sources);
                Arrivals::Even {
                    phase,
                    gap: mean_gap,
                    bytes: fixed,
                }
            }
            Profile::BurstyUdp => {
                let share = traffic.source_pps() / traffic.line_pps();
                // Whole packets: an exponential time rounded up is geometric, with this mean.
                let packets = BURSTY_ON_NS * traffic.line_pps() / 1e9;
                let mean_packets = 1.0 / (1.0 - (-1.0 / packets).exp());
                let mean_off = mean_packets * 1e9 / traffic.line_pps() * (1.0 - share) / share;
                Arrivals::OnOff {
                    at: random.exponential(mean_off),
                    mean_on: BURSTY_ON_NS,
                    mean_off,
                    line_pps: traffic.line_pps(),
                    payload,
                }
            }
            Profile::Serverless => Arrivals::Diurnal {
                at: 0.0,
                peak_gap: mean_gap * CALLS_PER_EVENT / (1.0 + SWING),
                day: period as f64,
                spike_left: 0,
                sizes: profile.sizes().unwrap_or(&super::sizes::RPC_REQUEST),
            },
            Profile::LlmTokens => Arrivals::Sessions(Sessions::new(1e9 / mean_gap, random)),
            _ => Arrivals::Poisson {
                at: 0.0,
                mean_gap,
                sizes: profile.sizes().map_or(Sizes::Fixed(fixed), Sizes::Drawn),
            },
        }
    }

    /// The instant and the bytes of message `i`.
    fn next(&mut self, i: u64, random: &mut Random) -> (u64, u64) {
        match self {
            Arrivals::Poisson { at, mean_gap, sizes } => {
                *at += random.exponential(*mean_gap);
                let bytes = match sizes {
                    Sizes::Drawn(sizes) => sizes.sample(random.uniform()),
                    Sizes::Fixed(bytes) => *bytes,
                };
                (*at as u64, bytes)
            }
            Arrivals::Even { phase, gap, bytes } => ((*phase + *gap * i as f64) as u64, *bytes),
            Arrivals::Periodic {
                period,
                begin,
                parts,
                packets,
                payload,
            } => {
                let (pass, part) = (i / *parts, i % *parts);
                // Part j ends where so many packets have been sent in all, rounded down: no packet is lost to rounding.
                let sent = |parts_sent: u64| (*packets * parts_sent as f64 / *parts as f64) as u64;
                let bytes = (sent(i + 1) - sent(i)).max(1) * *payload;
                let span = (*period as f64 - *begin) / *parts as f64;
                let within = *begin + span * part as f64;
                (pass.saturating_mul(*period).saturating_add(within as u64), bytes)
            }
            Arrivals::OnOff {
                at,
                mean_on,
                mean_off,
                line_pps,
                payload,
            } => {
                let packets = (random.exponential(*mean_on) * *line_pps / 1e9).ceil().max(1.0);
                let begin = *at;
                *at += packets * 1e9 / *line_pps + random.exponential(*mean_off);
                (begin as u64, packets as u64 * *payload)
            }
            Arrivals::Diurnal {
                at,
                peak_gap,
                day,
                spike_left,
                sizes,
            } => {
                if *spike_left > 0 {
                    *spike_left -= 1;
                    *at += SPIKE_GAP_NS;
                } else {
                    // Thinning (Lewis and Shedler 1979): events at the peak's rate, kept with the chance that the rate
                    // of the moment has of it. At least 23 % are.
                    loop {
                        *at += random.exponential(*peak_gap);
                        let rate = 1.0 - SWING * (std::f64::consts::TAU * (*at / *day).fract()).cos();
                        if random.uniform() * (1.0 + SWING) < rate {
                            break;
                        }
                    }
                    if random.uniform() < SPIKE_CHANCE {
                        *spike_left = SPIKE_CALLS - 1;
                    }
                }
                (*at as u64, sizes.sample(random.uniform()))
            }
            // Taken by the caller, because flows are its sessions.
            Arrivals::Sessions(_) => (0, 0),
        }
    }
}

/// As long as a short queue of a fast port; a shorter burst would hide in it, a longer one is a long flow.
const BURSTY_ON_NS: f64 = 1_000_000.0;
/// (1 + s) / (1 - s) = 4.3, peak to trough (XFaaS).
const SWING: f64 = 3.3 / 5.3;
const SPIKE_CALLS: u32 = 100;
const SPIKE_CHANCE: f64 = 0.001;
const SPIKE_GAP_NS: f64 = 10_000.0;
/// Calls of an event in the mean.
const CALLS_PER_EVENT: f64 = 1.0 + SPIKE_CHANCE * (SPIKE_CALLS - 1) as f64;
