//! For how long the common regimes want logs kept. A number stands here only where the text of the
//! regime has one; docs/archive.md says which have none.

use serde::{Deserialize, Serialize};

/// A regime that says for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Regime {
    /// PCI DSS 4.0.1, 10.5.1: at least 12 months, three of them at hand
    PciDss,
    /// HIPAA, 45 CFR 164.316(b)(2)(i): six years
    Hipaa,
    /// US brokers and dealers, SEC 17a-4(a): six years
    Sec17a4,
    /// Auditors under Sarbanes-Oxley, 17 CFR 210.2-06: seven years
    Sox,
}

impl Regime {
    /// Every regime.
    pub const ALL: [Regime; 4] = [Regime::PciDss, Regime::Hipaa, Regime::Sec17a4, Regime::Sox];

    /// Days, leap days included.
    pub fn days(self) -> u32 {
        match self {
            Regime::PciDss => 366,
            Regime::Hipaa | Regime::Sec17a4 => 2_192,
            Regime::Sox => 2_557,
        }
    }

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Regime::PciDss => "pci_dss",
            Regime::Hipaa => "hipaa",
            Regime::Sec17a4 => "sec17a4",
            Regime::Sox => "sox",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("../../docs/archive.md");

    #[test]
    fn the_table_of_regimes_is_what_they_are_set_to() {
        for regime in Regime::ALL {
            let row = format!("| `{}` | {} |", regime.name(), regime.days());
            assert!(DOCS.contains(&row), "{row}");
            let text = serde_json::to_string(&regime).unwrap();
            assert_eq!(text, format!("\"{}\"", regime.name()));
        }
    }
}
