//! How hard the machine is pressed, as the kernel tells it (PSI: Documentation/accounting/psi.rst), and what follows.
//!
//! Memory counts as soon as some processes wait for it, the disk only when all do. The CPU never counts: that everything
//! takes longer is no reason not to begin. The sessions' own control group counts like the machine.

use std::path::{Path, PathBuf};

/// Where what is known of the machine is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// The kernel's `pressure` directory: `/proc/pressure`. `None`: not looked at.
    pub(super) pressure: Option<PathBuf>,
    /// The control group of the sessions' slice, where they have one. It exists while there are sessions.
    pub(super) slice: Option<PathBuf>,
}

/// The settings `pressure`, in percent of the time over the last ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From it on nothing new starts.
    pub hold_percent: u32,
    /// From it on nothing is submitted.
    pub refuse_percent: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold_percent: 40,
            refuse_percent: 80,
        }
    }
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    Memory,
    Disk,
}

impl Short {
    fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "the disk",
        }
    }
}

/// What is held because of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Level {
    /// The kernel does not tell.
    #[default]
    Unknown,
    /// Nothing.
    Free,
    /// New starts.
    Hold(Short),
    /// Submissions too.
    Refuse(Short),
}

impl Level {
    /// The word of the bus.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Free => "none",
            Self::Hold(_) => "hold",
            Self::Refuse(_) => "refuse",
        }
    }

    /// What presses, where anything is held.
    pub(super) fn short(self) -> Option<&'static str> {
        match self {
            Self::Hold(short) | Self::Refuse(short) => Some(short.as_str()),
            Self::Unknown | Self::Free => None,
        }
    }

    /// The level after a reading. One that was reached is left only an eighth below its limit, so that it does not come
    /// and go.
    pub(super) fn after(self, percents: Option<Percents>, limits: Limits) -> Self {
        let Some(Percents { memory, disk }) = percents else {
            return Self::Unknown;
        };
        let (most, short) = match disk > memory {
            true => (disk, Short::Disk),
            false => (memory, Short::Memory),
        };
        let reaches = |limit: u32, reached: bool| {
            let limit = f64::from(limit);
            most >= if reached { limit * 0.875 } else { limit }
        };
        if reaches(limits.refuse_percent, matches!(self, Self::Refuse(_))) {
            Self::Refuse(short)
        } else if reaches(limits.hold_percent, self.short().is_some()) {
            Self::Hold(short)
        } else {
            Self::Free
        }
    }
}

/// Percent of the last ten seconds in which something waited, the higher of machine and slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Percents {
    memory: f64,
    disk: f64,
}

impl Host {
    /// What the kernel tells now; `None` where it tells nothing of the machine.
    pub(super) fn percents(&self) -> Option<Percents> {
        let pressure = self.pressure.as_deref()?;
        let of_slice = |file: &str, kind: &str| {
            let slice = self.slice.as_deref()?;
            avg10(&slice.join(file), kind)
        };
        let memory = avg10(&pressure.join("memory"), "some");
        let disk = avg10(&pressure.join("io"), "full");
        if memory.is_none() && disk.is_none() {
            return None;
        }
        let most = |machine: Option<f64>, slice: Option<f64>| machine.unwrap_or(0.0).max(slice.unwrap_or(0.0));
        Some(Percents {
            memory: most(memory, of_slice("memory.pressure", "some")),
            disk: most(disk, of_slice("io.pressure", "full")),
        })
    }

    /// Processes and threads of the sessions; `None` where the kernel does not count them.
    pub(super) fn processes(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.slice.as_deref()?.join("pids.current")).ok()?;
        text.trim().parse().ok()
    }
}

/// `avg10` of the file's line of that kind.
fn avg10(path: &Path, kind: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split(' ').next() == Some(kind))?;
    let value = line.split(' ').find_map(|field| field.strip_prefix("avg10="))?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percents(memory: f64, disk: f64) -> Option<Percents> {
        Some(Percents { memory, disk })
    }

    #[test]
    fn a_level_is_reached_at_its_limit_and_left_a_little_below() {
        let limits = Limits::default();
        let mut level = Level::default();
        let mut shown = Vec::new();
        for memory in [0.0, 39.9, 40.0, 36.0, 34.9, 36.0, 41.0, 80.0, 71.0, 69.0, 36.0, 20.0] {
            level = level.after(percents(memory, 1.0), limits);
            shown.push(level.as_str());
        }
        assert_eq!(
            shown,
            [
                "none", "none", "hold", "hold", "none", "none", "hold", "refuse", "refuse", "hold", "hold", "none"
            ]
        );
        assert_eq!(level.after(percents(3.0, 50.0), limits), Level::Hold(Short::Disk));
        assert_eq!(level.after(None, limits), Level::Unknown);
    }

    #[test]
    fn the_higher_of_machine_and_slice_counts_and_never_the_cpu() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host {
            pressure: Some(directory.path().to_owned()),
            slice: Some(directory.path().join("slice")),
        };
        assert_eq!((host.percents(), host.processes()), (None, None));
        let line = |some: &str, full: &str| {
            let rest = "avg60=99.00 avg300=99.00 total=123456";
            format!("some avg10={some} {rest}\nfull avg10={full} {rest}\n")
        };
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("cpu", &line("97.00", "96.00"));
        write("memory", &line("12.50", "1.00"));
        write("io", &line("88.00", "7.00"));
        assert_eq!(host.percents(), percents(12.5, 7.0));
        std::fs::create_dir(directory.path().join("slice")).unwrap();
        write("slice/memory.pressure", &line("3.00", "0.00"));
        write("slice/io.pressure", &line("60.00", "55.25"));
        write("slice/pids.current", "321\n");
        assert_eq!((host.percents(), host.processes()), (percents(12.5, 55.25), Some(321)));
    }

    #[test]
    fn this_kernel_is_understood() {
        let host = Host {
            pressure: Some("/proc/pressure".into()),
            slice: None,
        };
        // A kernel without PSI has no such file, or one that cannot be read.
        let told = std::fs::read_to_string("/proc/pressure/memory").is_ok();
        assert_eq!(host.percents().is_some(), told);
    }
}
