//! Several faults at random moments of one operation. A seed makes a schedule; the one that failed is
//! printed and can be run again: `SYMVIRT_SEED=… cargo test -p symvirt-host --test simulation seed`.

use symvirt_host::operation::IfNotConverging;

use super::simulated::{Crash, Fault, Faults, Moment, Setting, Side, check, run};

/// Schedules that every run makes, and as many that no run has made before.
const SCHEDULES: u64 = 400;

/// SplitMix64, by Steele, Lea and Flood: a seed gives the same schedule for ever.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn moment(&mut self, effects: usize, records: usize) -> Moment {
        match self.below(4) {
            0 => Moment::BeforeEffect(1 + self.below(effects)),
            1 => Moment::AfterEffect(1 + self.below(effects)),
            2 => Moment::BeforeRecord(self.below(records)),
            _ => Moment::AfterRecord(self.below(records)),
        }
    }

    fn fault(&mut self, effects: usize, records: usize) -> Fault {
        let n = 1 + self.below(effects);
        match self.below(14) {
            0 => Fault::Refused(n),
            1 => Fault::AnswerLost(n),
            2 => Fault::Away(n, 1 + self.below(60)),
            3 => Fault::Stays(1 + self.below(2)),
            4 => Fault::LinkDown,
            5 => Fault::Lingers(1 + self.below(5)),
            6 => Fault::Breaks(n),
            7 => {
                let side = if self.coin() {
                    Side::Source
                } else {
                    Side::Destination
                };
                Fault::Dies(n, side, self.below(2))
            }
            8 => Fault::Dirties(
                [
                    IfNotConverging::Refuse,
                    IfNotConverging::Hold,
                    IfNotConverging::Force,
                    IfNotConverging::Postcopy,
                ][self.below(4)],
            ),
            9 => Fault::AgentDies(n, 1 + self.below(60) as u64),
            10 => Fault::AgentNew,
            11 => Fault::LinkBreaks(1 + self.below(3)),
            _ => Fault::Crashes(Crash {
                at: self.moment(effects, records),
                forward: self.coin(),
            }),
        }
    }
}

/// Whatever goes wrong together, every VM is where somebody can find it, and who has to act is told.
async fn endures(seed: u64) {
    let mut draw = Draw(seed);
    let settings = Setting::all();
    let setting = settings[draw.below(settings.len())];
    let whole = run(setting, None, None).await;
    let (effects, records) = (whole.world.effects(), whole.records);
    let count = 1 + draw.below(4);
    let faults = (0..count).map(|_| draw.fault(effects, records)).collect();
    let cancel = draw.coin().then(|| draw.below(records));
    let faults = Faults(faults);
    println!("seed {seed}: {setting:?}, {faults:?}, cancelled at record {cancel:?}");
    let ended = run(setting, faults, cancel).await;
    check(setting, &ended, &format!("seed {seed}"));
}

#[tokio::test(start_paused = true)]
async fn fixed_seeds() {
    for seed in 0..SCHEDULES {
        endures(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn fresh_seeds() {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let first = u64::try_from(since.as_nanos() & u128::from(u64::MAX)).unwrap();
    for n in 0..SCHEDULES {
        endures(first.wrapping_add(n)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn seed_of_a_schedule_that_failed() {
    if let Ok(seed) = std::env::var("SYMVIRT_SEED") {
        endures(seed.parse().unwrap()).await;
    }
}
