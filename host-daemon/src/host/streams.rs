//! How migration streams go: the settings of QEMU at both ends.

use symvirt_qmp::migration::Settings;

use crate::operation::effects::Streams;

/// Connections of a compressed stream. One processor compresses more than the slow links carry for
/// which it pays; and with a second channel a copy whose destination dies can keep QEMU (10.0) for
/// ever: its sending thread waits to hear of every channel, those that see that another has failed
/// leave without a word, and that QEMU never migrates again.
const CHANNELS: u8 = 1;
/// A VM is slowed down if in two passes together it dirties this share of what was sent, in percent:
/// with less than that, passes become shorter by themselves.
const TRIGGER: u8 = 90;
/// How far it is slowed down at first, in percent.
const FIRST: u8 = 20;

/// What both ends are told.
pub(super) fn settings(streams: Streams) -> Settings {
    let compress = streams == Streams::Zstd;
    Settings {
        pause_before_switchover: true,
        multifd_channels: compress.then_some(CHANNELS),
        compress,
        postcopy: streams == Streams::Postcopy,
        ..Settings::live()
    }
}

/// What a copy is told at its source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// Bytes per second; 0 for no limit.
    pub bandwidth: u64,
    /// As both ends were told.
    pub streams: Streams,
    /// How far the VM may be slowed down, in percent.
    pub throttle: u8,
}

impl Source {
    pub fn settings(self) -> Settings {
        let mut settings = settings(self.streams);
        settings.await_stop = true;
        settings.max_bandwidth = Some(self.bandwidth);
        let most = self.throttle.min(99);
        if most > 0 {
            settings.auto_converge = true;
            let parameters = [
                ("cpu-throttle-initial", FIRST.min(most)),
                ("max-cpu-throttle", most),
                ("throttle-trigger-threshold", TRIGGER),
            ];
            for (name, value) in parameters {
                settings.parameters.insert(name.into(), value.into());
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(throttle: u8) -> Settings {
        let source = Source {
            bandwidth: 0,
            streams: Streams::Zstd,
            throttle,
        };
        source.settings()
    }

    #[test]
    fn a_source_differs_from_its_destination_in_nothing_that_shapes_the_stream() {
        let there = settings(Streams::Zstd);
        let here = source(50);
        assert_eq!(here.compress, there.compress);
        assert_eq!(here.multifd_channels, there.multifd_channels);
        assert_eq!(here.return_path, there.return_path);
    }

    #[test]
    fn nobody_is_slowed_down_unasked_nor_further_than_qemu_can() {
        assert!(!source(0).auto_converge);
        assert_eq!(source(255).parameters["max-cpu-throttle"], 99);
        let little = source(5);
        assert_eq!(little.parameters["cpu-throttle-initial"], 5);
        assert_eq!(little.parameters["max-cpu-throttle"], 5);
    }
}
