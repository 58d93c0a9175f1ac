//! `--over`: when the generated records happen.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::generate::Request;

/// The time of a request's last record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// As it is written.
    Now,
    /// As if the run had taken some time, and ended when it began.
    Over {
        /// When the run began, Unix nanoseconds.
        end_unix_nano: u64,
        /// How long it is taken to have lasted, nanoseconds.
        nanos: u64,
        /// Records of the whole run, 1 at least.
        records: u64,
    },
}

impl Clock {
    /// The clock of a run of so many records.
    pub(super) fn new(over: Option<Duration>, records: u64) -> anyhow::Result<Clock> {
        Ok(match over {
            None => Clock::Now,
            Some(over) => Clock::Over {
                end_unix_nano: unix_nano()?,
                nanos: u64::try_from(over.as_nanos())?,
                records,
            },
        })
    }

    /// The time of a request's last record, Unix nanoseconds.
    pub(super) fn time(self, request: &Request) -> anyhow::Result<u64> {
        match self {
            Clock::Now => unix_nano(),
            Clock::Over {
                end_unix_nano,
                nanos,
                records,
            } => {
                let left = records.saturating_sub(request.sent_before + request.records);
                let before_end = u128::from(nanos) * u128::from(left) / u128::from(records);
                Ok(end_unix_nano.saturating_sub(u64::try_from(before_end)?))
            }
        }
    }
}

/// The time now, Unix nanoseconds.
pub(super) fn unix_nano() -> anyhow::Result<u64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("this machine's clock is before 1970")?;
    Ok(u64::try_from(now.as_nanos())?)
}

#[cfg(test)]
mod tests {
    use super::super::generate::Plan;
    use super::*;
    use crate::signal::Signal;

    /// Scenario: 40 records, 10 a request, over a minute.
    /// Guarantees: the requests are a quarter of it apart, and the last one happens at the run's start.
    #[test]
    fn times_are_spread_evenly() {
        let clock = Clock::Over {
            end_unix_nano: 1_000_000_000_000,
            nanos: 60_000_000_000,
            records: 40,
        };
        let plan = Plan::new(40, 10, vec![Signal::Logs]);
        let times: Vec<u64> = (0..4)
            .map(|index| clock.time(&plan.request(index).unwrap()).unwrap())
            .collect();
        let seconds = [955, 970, 985, 1000];
        assert_eq!(times, seconds.map(|second| second * 1_000_000_000));
    }
}
