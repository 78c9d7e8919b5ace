//! In which order figures are told, and what those with a target are to be.

/// What a figure is to be.
#[derive(Debug, Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

use Target::{AtLeast, AtMost};

/// The architecture's targets, the most telling first. Those of size within 20 % hold for each part of it, too.
const TARGETS: [(&str, Target); 12] = [
    ("append_vs_one_tx", AtLeast(8.0)),
    ("append_vs_postgres_es", AtLeast(15.0)),
    ("recovery_cpu_vs_floor", AtMost(1.5)),
    ("renewal_cpu_vs_floor", AtMost(1.6)),
    ("growth_tokens", AtLeast(0.8)),
    ("growth_events", AtLeast(0.8)),
    ("kept_joins_per_s", AtLeast(8000.0)),
    ("full_handshake_joins_per_s", AtLeast(2100.0)),
    ("kept_p99_ms_at_half_peak", AtMost(15.0)),
    ("renewal_p99_ms_at_half_peak", AtMost(40.0)),
    ("rss_mb_100k_bots", AtMost(150.0)),
    ("cold_start_s_1m_tokens", AtMost(5.0)),
];

/// What a figure is, in the order in which they are told: a ratio holds on other machines, too.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ratio,
    Rate,
    Latency,
    MemoryOrStart,
    Rest,
}

impl Kind {
    fn of(name: &str) -> Self {
        if name.contains("_vs_") || name.starts_with("growth_") || name.starts_with("cold_cache_") {
            Self::Ratio
        } else if name.contains("_per_s") {
            Self::Rate
        } else if name.contains("_ms") {
            Self::Latency
        } else if name.contains("rss_mb") || name.starts_with("cold_start") {
            Self::MemoryOrStart
        } else {
            Self::Rest
        }
    }
}

/// What a figure with a target is to be. Parts of a whole have one where the whole `is_figure`: it is left out for sizes
/// that no target is about.
fn target(name: &str, is_figure: impl Fn(&str) -> bool) -> Option<Target> {
    if let Some((_, target)) = TARGETS.iter().find(|(with_target, _)| *with_target == name) {
        return Some(*target);
    }
    let part_of = |whole| is_figure(whole).then(|| name.strip_prefix(whole)).flatten();
    let part = part_of("growth_tokens").or_else(|| part_of("growth_events"))?;
    match part.ends_with("_joins") {
        true => Some(AtLeast(0.8)),
        false => (part.ends_with("_cpu") || part.ends_with("_p99")).then_some(AtMost(1.2)),
    }
}

/// What figures are sorted by: their kind, those with a target first, and the others by name.
pub(super) fn rank(name: &str) -> impl Ord + use<'_> {
    let target = TARGETS.iter().position(|(with_target, _)| *with_target == name);
    (Kind::of(name), target.unwrap_or(TARGETS.len()), name)
}

/// A figure's target, and whether it is met; nothing for one without.
pub(super) fn judged(name: &str, value: f64, is_figure: impl Fn(&str) -> bool) -> String {
    let Some(target) = target(name, is_figure) else { return String::new() };
    let (wanted, met) = match target {
        AtLeast(least) => (format!("{least} or more"), value >= least),
        AtMost(most) => (format!("{most} or less"), value <= most),
    };
    format!("{wanted}: {}", if met { "met" } else { "not met" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_come_first_and_those_with_a_target_before_others() {
        let mut names = [
            "floor_issue_us",
            "cold_start_s_1m_tokens",
            "storm_p50_ms",
            "kept_p99_ms_at_half_peak",
            "append_joins_per_s",
            "kept_joins_per_s",
            "append_vs_one_tx_same_rows",
            "growth_tokens_kept_p99",
            "renewal_cpu_vs_floor",
            "append_vs_one_tx",
        ];
        names.sort_by(|one, other| rank(one).cmp(&rank(other)));
        assert_eq!(
            names,
            [
                "append_vs_one_tx",
                "renewal_cpu_vs_floor",
                "append_vs_one_tx_same_rows",
                "growth_tokens_kept_p99",
                "kept_joins_per_s",
                "append_joins_per_s",
                "kept_p99_ms_at_half_peak",
                "storm_p50_ms",
                "cold_start_s_1m_tokens",
                "floor_issue_us",
            ]
        );
    }

    #[test]
    fn a_target_is_met_from_its_own_side() {
        assert_eq!(judged("append_vs_one_tx", 8.0, |_| false), "8 or more: met");
        assert_eq!(judged("append_vs_one_tx", 7.96, |_| false), "8 or more: not met");
        assert_eq!(judged("recovery_cpu_vs_floor", 1.4, |_| false), "1.5 or less: met");
        assert_eq!(judged("recovery_cpu_vs_floor", 2.31, |_| false), "1.5 or less: not met");
        assert_eq!(judged("growth_tokens_kept_p99", 1.25, |_| true), "1.2 or less: not met");
        assert_eq!(judged("growth_events_renewal_joins", 0.94, |_| true), "0.8 or more: met");
        assert_eq!(judged("growth_tokens_kept_p99", 1.25, |_| false), "", "of a size that no target is about");
        assert_eq!(judged("growth_between_kept_joins", 0.5, |_| true), "");
        assert_eq!(judged("storm_s", 1.0, |_| false), "");
    }
}
