//! Promises of [`super`].

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn copy(passes: u64, left: u64, dirty_rate: u64) -> CopyStatus {
    CopyStatus {
        passes,
        remaining: left,
        dirty_rate,
        expected_downtime_ms: Some(left * 1000 / (100 * MIB)),
        ..CopyStatus::default()
    }
}

fn vm() -> VmName {
    "vm1".parse().unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_copy_that_shrinks_a_little_with_each_pass_converges() {
    let mut trend = Trend::default();
    let mut left = 1000 * MIB;
    for pass in 2..30 {
        assert!(!trend.stagnates(seconds(20 * pass), &vm(), &copy(pass, left, 0)));
        left -= left / 8;
    }
}

#[test]
fn a_copy_that_stays_as_it_is_is_found_out_after_some_passes_and_not_before_some_seconds() {
    for (seconds_a_pass, found) in [(1, 12), (20, 5)] {
        let mut trend = Trend::default();
        let passes = 2..100;
        let mut looks =
            passes.map(|pass| (pass, copy(pass, 1000 * MIB + pass % 3 * MIB, 90 * MIB)));
        let first =
            looks.find(|(pass, copy)| trend.stagnates(seconds(seconds_a_pass * pass), &vm(), copy));
        assert_eq!(first.unwrap().0, found, "{seconds_a_pass} s a pass");
    }
}

#[test]
fn copies_that_are_alike_are_found_out_though_each_waits_for_the_other_at_the_end_of_its_passes() {
    let mut trend = Trend::default();
    let stagnates = (2..10).find(|pass| {
        let found = (0..13).any(|second| {
            let now = seconds(20 * pass + second);
            trend.stagnates(now, &vm(), &copy(*pass, 60 * MIB, 90 * MIB))
        });
        (14..20).for_each(|second| trend.slowed(seconds(20 * pass + second), &vm()));
        found
    });
    assert_eq!(stagnates, Some(5));
}

#[test]
fn of_a_copy_that_is_slowed_down_most_of_the_time_nothing_is_said() {
    let mut trend = Trend::default();
    for pass in 2..100 {
        let now = |second| seconds(20 * pass + second);
        for second in 0..8 {
            assert!(!trend.stagnates(now(second), &vm(), &copy(pass, 60 * MIB, 90 * MIB)));
        }
        (8..20).for_each(|second| trend.slowed(now(second), &vm()));
    }
}

#[test]
fn a_vm_that_is_being_slowed_down_is_given_time_to_converge() {
    let mut trend = Trend::default();
    for pass in 2..12 {
        let mut copy = copy(pass, 1000 * MIB, 90 * MIB);
        copy.throttle = u8::try_from(pass * 5).unwrap();
        assert!(!trend.stagnates(seconds(20 * pass), &vm(), &copy));
    }
}

#[test]
fn a_rest_that_dirties_as_fast_as_it_is_sent_never_fits() {
    assert_eq!(
        fits_in(&copy(2, 500 * MIB, 100 * MIB), 100 * MIB, 300),
        None
    );
    let zstd = CopyStatus {
        ratio_percent: 400,
        ..copy(2, 500 * MIB, 100 * MIB)
    };
    assert!(
        fits_in(&zstd, 100 * MIB, 300).is_some(),
        "four times as much goes over"
    );
}

#[test]
fn page_caches_are_dropped_where_the_link_is_slower_than_a_disk() {
    let with = |bandwidth, gang_bandwidth, drop_cache| {
        drops_cache(&Limits {
            bandwidth,
            gang_bandwidth,
            drop_cache,
            ..Limits::default()
        })
    };
    assert!(!with(0, 0, DropCache::Auto));
    assert!(!with(READ_AGAIN, 0, DropCache::Auto));
    assert!(with(READ_AGAIN - 1, 0, DropCache::Auto));
    assert!(with(0, 1 << 20, DropCache::Auto));
    assert!(!with(1 << 20, 0, DropCache::Off));
    assert!(with(0, 0, DropCache::On));
}

#[test]
fn compressing_is_for_slow_links() {
    let with = |bandwidth, compress| {
        streams(&Limits {
            bandwidth,
            compress,
            ..Limits::default()
        })
    };
    assert_eq!(
        with(0, Compress::Auto),
        Streams::Plain,
        "nobody said that it is slow"
    );
    assert_eq!(with(10 * MIB, Compress::Auto), Streams::Zstd);
    assert_eq!(with(500 * MIB, Compress::Auto), Streams::Plain);
    assert_eq!(with(10 * MIB, Compress::Off), Streams::Plain);
    assert_eq!(with(0, Compress::Zstd), Streams::Zstd);
}

#[test]
fn only_ranks_that_run_can_be_held() {
    let hold = |ranks, held| course(IfNotConverging::Hold, ranks, held).0;
    assert_eq!(hold(true, false), Course::Hold);
    assert_eq!(hold(true, true), Course::Refuse);
    assert_eq!(hold(false, false), Course::Refuse);
}

proptest! {
    /// A copy that goes on as measured is simulated pass by pass.
    #[test]
    fn what_is_foreseen_comes_about_if_the_vm_goes_on_like_this(
        left in 1u64..(1 << 38), dirty_rate in 0u64..(1 << 30), bandwidth in (1u64 << 20)..(1 << 33),
        downtime_ms in 10u64..2000,
    ) {
        let copy = copy(2, left, dirty_rate);
        let (mut rest, mut took) = (left as f64, 0.0);
        let fits = |rest: f64| rest / bandwidth as f64 * 1000.0 <= downtime_ms as f64;
        for _ in 0..2000 {
            if fits(rest) { break; }
            let pass = rest / bandwidth as f64;
            took += pass;
            rest = pass * dirty_rate as f64;
        }
        let foreseen = fits_in(&copy, bandwidth, downtime_ms);
        // At the edge the two may round apart.
        let edge = dirty_rate as f64 / bandwidth as f64;
        prop_assume!(!(0.97..1.03).contains(&edge));
        match foreseen {
            Some(foreseen) => {
                prop_assert!(fits(rest * 0.98), "{rest}");
                let off = (foreseen.as_secs_f64() - took).abs();
                prop_assert!(off <= 0.05 * took + 0.01 + downtime_ms as f64 / 1000.0, "{off} {took}");
            }
            None => prop_assert!(!fits(rest * 1.02), "{rest}"),
        }
    }
}
