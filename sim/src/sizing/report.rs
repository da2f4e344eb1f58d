//! An `Advice` in words for people, CSV for tools, JSON for both.
//!
//! The words are a list of what and why, which the page shows too.

use std::fmt::Write as _;
use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::choice::{Candidate, envelope};
use super::fleet::CommandLine;
use super::prices::{Costs, MONTH_S, PerRequest};
use super::run::{Advice, Chosen, Trend};
use crate::plot::{amount, grouped, money};
use crate::replay::Unit;
use crate::report::Output;

/// Rows of the table that people see; tools get all of them.
const ROWS_SHOWN: usize = 14;

/// The columns of CSV.
const COLUMNS: [&str; 10] = [
    "policy",
    "memory_bytes",
    "machine_bytes",
    "requests",
    "hit_ratio",
    "hit_ratio_low",
    "hit_ratio_high",
    "sampled",
    "month",
    "advised",
];

/// Writes `advice` in the form of `output`.
///
/// # Errors
///
/// What `out` answers.
pub fn write(advice: &Advice, output: Output, out: &mut impl Write) -> io::Result<()> {
    match output {
        Output::Table => words(advice, out),
        Output::Csv => csv(advice, out),
        Output::Json => writeln!(out, "{:#}", json(advice)),
    }
}

/// `0.9003` as `90.03%`.
pub(crate) fn percent(ratio: f64) -> String {
    format!("{:.2}%", ratio * 100.0)
}

/// A hit ratio, and that it is an estimate if it is one.
fn estimate(it: &Candidate) -> String {
    format!("{}{}", if it.margin > 0.0 { "about " } else { "" }, percent(it.hit_ratio))
}

/// Bytes as a person writes them.
pub(crate) fn bytes(bytes: u64) -> String {
    amount(bytes as f64, Unit::Bytes)
}

/// Memory as `-m` counts it, to the MiB: two that differ are not told as the same.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{} MiB", grouped(bytes.div_ceil(1 << 20)))
}

/// What is advised in a few words; the page's largest.
pub(crate) fn headline(advice: &Advice) -> String {
    let Some(chosen) = &advice.chosen else {
        return match advice.ask.target {
            Some(target) => format!("No size hits {} of these reads", percent(target)),
            None => "No cache hits any of these reads".into(),
        };
    };
    let (fleet, policy) = (&chosen.fleet, chosen.candidate.policy);
    let memory = match fleet.nodes {
        1 => mib(fleet.memory_bytes),
        nodes => format!("{nodes} nodes of {}", mib(fleet.memory_bytes)),
    };
    let hits = percent(chosen.candidate.hit_ratio);
    format!("{memory} with {policy} hits {hits} of the reads")
}

/// Whether that is worth having, where what is asked tells.
pub(crate) fn verdict(advice: &Advice) -> Option<String> {
    let chosen = advice.chosen.as_ref()?;
    let in_money = chosen.costs.filter(|_| advice.weighs()).map(|(with, without)| {
        let (with, without) = (with.total(), without.total());
        if with < without {
            return format!("It pays: {} a month, and {} without a cache", money(with), money(without));
        }
        format!(
            "It does not pay: {} a month, and only {} without a cache. No other costs less than this one",
            money(with),
            money(without)
        )
    });
    let slower = advice.ask.time.filter(|time| !time.pays(chosen.candidate.hit_ratio));
    let in_time = slower.map(|time| {
        let mean = seconds(time.mean(chosen.candidate.hit_ratio));
        format!(
            "It makes requests slower: {mean} in the mean, and {} without a cache",
            seconds(time.direct)
        )
    });
    match (in_money, in_time) {
        (Some(money), Some(time)) => Some(format!("{money}. {time}")),
        (one, other) => one.or(other),
    }
}

/// The commands that start what is advised.
pub(crate) fn commands(advice: &Advice) -> Vec<String> {
    let Some(chosen) = &advice.chosen else {
        return Vec::new();
    };
    let (fleet, policy) = (chosen.fleet, chosen.candidate.policy);
    let line = CommandLine { fleet, policy, shape: advice.wish.shape, preset: advice.wish.preset };
    let founder = line.to_string();
    if line.preset.is_none() {
        return vec![founder];
    }
    let joining = CommandLine { preset: None, ..line };
    vec![founder, format!("{joining} --cluster-dir DIR --join HOST:PORT --token-file FILE")]
}

/// What is said of a log without a knee, which every log has that a cache of any size hits.
const NO_HITS: &str = "each asks for an object for the first time, after it expired or was deleted, or for one too \
                       large to be stored. A longer log has fewer of the first kind";

/// What is advised and why, each with its heading.
pub(crate) fn answer(advice: &Advice) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    match &advice.chosen {
        Some(chosen) => {
            lines.push(("hit ratio", hit_ratio(advice, chosen)));
            lines.push(("memory", memory(chosen)));
            lines.push(("policy", policy(chosen)));
            if let Some((with, without)) = &chosen.costs {
                lines.push(("month", month(with, without)));
            }
            lines.extend(rules(advice, chosen.candidate.hit_ratio));
        }
        None if advice.ask.target.is_some() => lines.push(("target", unreachable(advice))),
        None => lines.push(("why", NO_HITS.into())),
    }
    if let Some(knee) = &advice.knee {
        lines.push(("knee", knee_line(knee, advice.chosen.as_ref())));
    }
    lines.push(("ceiling", ceiling(advice)));
    if advice.scouted.reads_too_large > 0 {
        lines.push(("too large", too_large(advice)));
    }
    lines
}

fn hit_ratio(advice: &Advice, chosen: &Chosen) -> String {
    let it = &chosen.candidate;
    let mut line = format!("{} of the reads", percent(it.hit_ratio));
    if it.margin > 0.0 {
        let (low, high) = it.band();
        let _infallible = write!(line, ", between {} and {}", percent(low), percent(high));
    }
    if let Some(target) = advice.ask.target {
        let _infallible = write!(line, "; asked for were {}", percent(target));
    }
    line
}

fn memory(chosen: &Chosen) -> String {
    let fleet = &chosen.fleet;
    let (items, machine) = (mib(fleet.memory_bytes), mib(fleet.machine_bytes()));
    if fleet.nodes == 1 {
        return format!(
            "{items} for items and what they need (-m); {machine} of the machine, with {} for the \
             program, its threads and connections",
            mib(fleet.allowance_bytes)
        );
    }
    let copies = match fleet.copies {
        1 => "one copy of each item; clients spread keys over the nodes".to_owned(),
        copies => format!("{copies} copies of each item"),
    };
    format!(
        "{} nodes with {items} for items (-m) and {machine} of each machine, {} in all: what one server \
         of {} holds, {copies}",
        fleet.nodes,
        mib(fleet.total_bytes()),
        mib(chosen.candidate.memory_bytes),
    )
}

fn policy(chosen: &Chosen) -> String {
    let mut line = chosen.candidate.policy.to_string();
    for (number, other) in chosen.others.iter().enumerate() {
        line += if number == 0 { "; in the same memory " } else { ", " };
        let _infallible = write!(line, "{} hits {}", other.policy, estimate(other));
    }
    line
}

fn month(with: &Costs, without: &Costs) -> String {
    let parts = [
        ("memory", with.memory),
        ("requests", with.requests),
        ("waiting", with.waiting),
        ("backend", with.backend),
    ];
    let told: Vec<String> = parts
        .into_iter()
        .filter(|(_, cost)| *cost > 0.0)
        .map(|(what, cost)| format!("{what} {}", money(cost)))
        .collect();
    let mut line = format!("{} ({})", money(with.total()), told.join(", "));
    if without.replicas > 0.0 {
        let _infallible = write!(
            line,
            "; backend replicas: {:.0}, {:.0} fewer than without a cache",
            with.replicas,
            without.replicas - with.replicas
        );
    }
    if without.total() > 0.0 {
        let _infallible = write!(line, "; {} without a cache", money(without.total()));
    }
    line
}

/// Whether a cache pays, in time and in money.
fn rules(advice: &Advice, hit_ratio: f64) -> Vec<(&'static str, String)> {
    let money_of = advice.ask.prices.and_then(|prices| prices.money);
    let in_time = advice.ask.time.map(|time| ("pays in time", rule(time, hit_ratio, seconds)));
    let in_money = money_of.map(|each| ("pays per request", rule(each, hit_ratio, million)));
    in_time.into_iter().chain(in_money).collect()
}

/// `H·R + M·(1−R) < L`, with the numbers put in.
fn rule(each: PerRequest, hit_ratio: f64, told: impl Fn(f64) -> String) -> String {
    let PerRequest { hit, miss, direct } = each;
    let sign = if each.pays(hit_ratio) { "<" } else { "≥" };
    let verdict = match (each.pays(hit_ratio), each.break_even()) {
        (true, Some(from)) => format!("a cache pays, and would above {} of hits", percent(from)),
        (_, Some(from)) => {
            format!("a cache does not pay; it would above {} of hits", percent(from))
        }
        (_, None) => "a cache never pays, as a hit takes no less than a request without one".into(),
    };
    format!(
        "H·R + M·(1−R) = {}·{:.4} + {}·{:.4} = {} {sign} L = {}: {verdict} (R hit ratio, H a hit, M a miss, \
         L a request without a cache)",
        told(hit),
        hit_ratio,
        told(miss),
        1.0 - hit_ratio,
        told(each.mean(hit_ratio)),
        told(direct),
    )
}

/// A time as a person writes it.
fn seconds(time: f64) -> String {
    let (number, unit) = match time {
        0.0 => (0.0, " s"),
        ..1e-3 => (time * 1e6, " µs"),
        ..1.0 => (time * 1e3, " ms"),
        _ => (time, " s"),
    };
    let digits = format!("{number:.3}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// A price of one request, told for a million.
fn million(price: f64) -> String {
    format!("{}/M", money(price * 1e6))
}

fn unreachable(advice: &Advice) -> String {
    let target = advice.ask.target.unwrap_or(1.0);
    let ceiling = &advice.ceiling;
    if ceiling.hit_ratio < target {
        return format!(
            "{} cannot be had from any cache, however large: of the reads in this log {} could have been hits. \
             The others ask for an object for the first time, or after it expired or was deleted{}. A longer log \
             has fewer of the first kind",
            percent(target),
            percent(ceiling.hit_ratio),
            if advice.scouted.reads_too_large > 0 {
                ", or for one too large to be stored"
            } else {
                ""
            },
        );
    }
    let best = advice.curves.iter().map(Candidate::sure).fold(0.0, f64::max);
    format!(
        "{} is so close to the ceiling that the sample cannot tell a size for it: the surest cache has {}. Ask \
         with a larger --sample, or without",
        percent(target),
        percent(best),
    )
}

fn knee_line(knee: &Candidate, chosen: Option<&Chosen>) -> String {
    if chosen.is_some_and(|chosen| chosen.candidate == *knee) {
        return "this is it: from here on a MiB more brings less than one does in the mean (Kneedle: farthest \
                above the straight line from no cache to one that holds everything)"
            .into();
    }
    format!(
        "{} with {} hits {}: from there on a MiB more brings less than one does in the mean (Kneedle)",
        mib(knee.memory_bytes),
        knee.policy,
        estimate(knee)
    )
}

fn ceiling(advice: &Advice) -> String {
    let ceiling = &advice.ceiling;
    format!(
        "{} would be hits if the cache held everything{}, about {}; the other {} ask for what was never asked \
         for before, or is no longer valid",
        percent(ceiling.hit_ratio),
        if advice.scouted.reads_too_large > 0 { " that is not too large for it" } else { "" },
        bytes(advice.scouted.weight_bytes),
        percent(1.0 - ceiling.hit_ratio),
    )
}

fn too_large(advice: &Advice) -> String {
    let scouted = &advice.scouted;
    let mib = scouted.largest_bytes.div_ceil(1 << 20);
    format!(
        "{} of the reads are of objects larger than {} (the server's -I), which it does not store; the largest \
         has {}. Ask again with --item-size-max {mib}MiB if they belong into the cache",
        percent(scouted.reads_too_large as f64 / scouted.reads as f64),
        bytes(advice.wish.shape.item_bytes_max),
        bytes(scouted.largest_bytes),
    )
}

/// How sure it is.
pub(crate) fn certainty(advice: &Advice) -> Vec<String> {
    let mut lines = Vec::new();
    let scouted = &advice.scouted;
    let whole = "played to the server's own code: its policies, its shards, what its items cost";
    if advice.rate >= 1.0 {
        lines.push(format!("Every request of the log was {whole}. No figure is an estimate."));
    } else {
        lines.push(format!(
            "The curves look at {:.3}% of the objects; their bands are five standard errors to both sides, told \
             from sixteen samples of disjoint objects.",
            advice.rate * 100.0
        ));
        if !advice.confirmed.is_empty() {
            lines.push(format!("What is advised is no estimate: the whole log was {whole}."));
        }
    }
    let span = scouted.duration_s().map_or_else(
        || "The log tells no time.".to_owned(),
        |seconds| {
            let peak = scouted.busiest as f64 / f64::from(seconds.min(60));
            format!(
                "The log covers {}, {} reads a second, {} in the busiest minute.",
                duration(seconds),
                rate(scouted.reads as f64 / f64::from(seconds)),
                rate(peak)
            )
        },
    );
    lines.push(span);
    if let Some(chosen) = &advice.chosen {
        lines.extend(steadiness(advice, chosen));
    }
    lines
}

/// How far the log is from a steady state.
fn steadiness(advice: &Advice, chosen: &Chosen) -> Vec<String> {
    let hit_ratio = chosen.candidate.hit_ratio;
    let (low, high) = chosen.range();
    let mut lines = vec![format!(
        "Tenth by tenth of the log it hits {} to {}, the first tenth left out, in which the cache is filled ({}).",
        percent(low),
        percent(high),
        percent(chosen.tenths[0]),
    )];
    let late = percent(chosen.late());
    lines.push(match chosen.trend() {
        Trend::Steady => format!("It is steady: the second half of the log hits {late}."),
        Trend::Rising => format!(
            "It still rises: the second half of the log hits {late}. Expect more than {} of a cache that is \
             kept running, and ask again with a longer log.",
            percent(hit_ratio)
        ),
        Trend::Falling => format!(
            "It falls: the second half of the log hits {late}. Requests turn to other objects; ask again with a \
             later log."
        ),
    });
    let tenths = &advice.ceiling_tenths;
    if let (Some(first), Some(last)) = (tenths.first(), tenths.last()) {
        lines.push(format!(
            "{} of its misses could not be spared by any size. What no cache could hit was {} of the reads in the \
             first tenth of the log and {} in the last: {}.",
            percent(advice.unavoidable(hit_ratio)),
            percent(1.0 - first),
            percent(1.0 - last),
            if 1.0 - last > 0.5 * (1.0 - first) {
                "the log is too short to show how much comes back, and a longer one will hit more"
            } else {
                "most of what comes is known by the end of the log"
            }
        ));
    }
    lines
}

/// How much happens a second, with two digits at least.
fn rate(per_s: f64) -> String {
    match per_s {
        ..0.1 => format!("{per_s:.4}"),
        ..10.0 => format!("{per_s:.2}"),
        _ => format!("{per_s:.0}"),
    }
}

/// Seconds as a person writes them.
fn duration(seconds: u32) -> String {
    let seconds = f64::from(seconds);
    let units = [(86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= 2.0 * unit);
    unit.map_or_else(
        || format!("{seconds} seconds"),
        |(unit, name)| format!("{:.1} {name}", seconds / unit),
    )
}

/// What it takes for granted.
pub(crate) fn assumptions(advice: &Advice) -> Vec<String> {
    let (scouted, found) = (&advice.scouted, &advice.found);
    let mut lines = vec![
        format!(
            "{} reads of {} objects, as the log has them; what comes later is like it.",
            scouted.reads, scouted.objects
        ),
        "The first read of an object is a miss, and the cache is empty at the beginning of the log.".into(),
        format!(
            "A server with -t {} and -I {}: more threads cut the memory into more shards.",
            advice.wish.shape.threads,
            bytes(advice.wish.shape.item_bytes_max)
        ),
    ];
    if advice.wish.nodes.is_some() || advice.wish.preset.is_some() {
        lines.push("Several nodes hit as often as one server of what they hold together.".into());
    }
    if let Some(load) = advice.load.filter(|_| advice.ask.prices.is_some()) {
        lines.push(format!(
            "A month has {:.0} hours and {:.4} million reads; the busiest minute {} reads a second, of which \
             the same share misses as of all.",
            MONTH_S / 3600.0,
            load.month() / 1e6,
            rate(load.busiest_per_s)
        ));
        lines.push(
            "Memory is paid for as the machines need it, the allowance beyond -m included.".into(),
        );
    }
    if found.malformed > 0 {
        lines.push(format!("{} records could not be read and were left out.", found.malformed));
    }
    if found.notes.lost > 0 {
        lines.push(format!("The log itself lost {} records.", found.notes.lost));
    }
    if found.empty_dropped > 0 {
        lines.push(format!("{} reads of size 0 were left out (--empty).", found.empty_dropped));
    }
    lines
}

/// What to ask next.
pub(crate) fn next(advice: &Advice) -> Vec<String> {
    let mut lines = Vec::new();
    if advice.ask.target.is_none() && advice.ask.prices.is_none() {
        lines.push("for a hit ratio:     --target-hit-ratio 0.9".into());
        lines.push("weighed in money:    --memory-price 3 --miss-cost 0.40/M".into());
        lines.push(
            "in backend replicas: --memory-price 3 --backend-rate 500 --backend-price 120".into(),
        );
        lines.push("whether it pays:     --hit-time 0.5ms --miss-time 20ms".into());
    }
    lines
}

fn words(advice: &Advice, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", headline(advice))?;
    if let Some(verdict) = verdict(advice) {
        writeln!(out, "{verdict}")?;
    }
    let commands = commands(advice);
    if !commands.is_empty() {
        writeln!(out)?;
    }
    for (number, command) in commands.iter().enumerate() {
        let note = match (number, &advice.chosen) {
            (0, Some(chosen)) if advice.wish.preset.is_none() && chosen.fleet.nodes > 1 => {
                format!("   # on each of {} nodes", chosen.fleet.nodes)
            }
            (0, _) if advice.wish.preset.is_some() => "   # the first node".into(),
            (1, Some(chosen)) => format!("   # the other {}, each", chosen.fleet.nodes - 1),
            _ => String::new(),
        };
        writeln!(out, "    {command}{note}")?;
    }
    writeln!(out)?;
    answer(advice).iter().try_for_each(|(what, why)| paragraph(what, why, out))?;
    writeln!(out, "\nHow sure this is")?;
    certainty(advice).iter().try_for_each(|line| paragraph("-", line, out))?;
    writeln!(out, "\nWhat it rests on")?;
    assumptions(advice).iter().try_for_each(|line| paragraph("-", line, out))?;
    writeln!(out, "\nHit ratio by memory (-m)")?;
    writeln!(out, "{}", table(advice).trim_fmt())?;
    let next = next(advice);
    if !next.is_empty() {
        writeln!(out, "\nWhat to ask next")?;
        next.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    Ok(())
}

/// Letters in a line of text.
const LINE_LETTERS: usize = 100;

/// Writes a text beside its heading, in lines that a terminal holds.
fn paragraph(heading: &str, text: &str, out: &mut impl Write) -> io::Result<()> {
    let indent = if heading == "-" { 2 } else { 18 };
    let mut line = format!("  {heading:<indent$}");
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > LINE_LETTERS {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(indent + 2);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    writeln!(out, "{line}")
}

/// The rows that people see: sizes at which every policy was played, and that which is advised.
pub(crate) fn rows(advice: &Advice) -> Vec<(u64, Vec<Option<Candidate>>)> {
    let of = |size: u64| {
        let at = |&policy: &eviction::Kind| {
            let chosen = advice.chosen.iter();
            let near = chosen.flat_map(|chosen| chosen.others.iter().chain([&chosen.candidate]));
            let mut all = near.chain(&advice.curves);
            all.find(|it| it.policy == policy && it.memory_bytes == size).copied()
        };
        (size, advice.policies.iter().map(at).collect::<Vec<_>>())
    };
    let chosen = advice.chosen.as_ref().map(|chosen| chosen.candidate.memory_bytes);
    let mut rows: Vec<_> = envelope(&advice.curves)
        .iter()
        .map(|it| it.memory_bytes)
        .chain(chosen)
        .map(of)
        .filter(|(_, row)| row.iter().all(Option::is_some))
        .collect();
    rows.sort_by_key(|(size, _)| *size);
    rows.dedup_by_key(|(size, _)| *size);
    rows
}

fn table(advice: &Advice) -> Table {
    let chosen = advice.chosen.as_ref().map(|chosen| &chosen.candidate);
    let mut rows = rows(advice);
    let step = rows.len().div_ceil(ROWS_SHOWN).max(1);
    let last = rows.len().saturating_sub(1);
    let mut number = 0;
    rows.retain(|(size, _)| {
        number += 1;
        let is_chosen = chosen.is_some_and(|chosen| chosen.memory_bytes == *size);
        is_chosen || (number - 1) % step == last % step
    });
    let mut table = Table::new();
    let mut header = vec!["-m".to_owned(), "machine".to_owned()];
    header.extend(advice.policies.iter().map(ToString::to_string));
    let is_priced = advice.ask.prices.is_some() && advice.load.is_some();
    if is_priced {
        header.push("month".into());
    }
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for (size, row) in rows {
        let fleet = advice.wish.fleet(size);
        let mut fields = vec![mib(size), mib(fleet.total_bytes())];
        for it in row.iter().flatten() {
            let is_chosen = chosen.is_some_and(|chosen| {
                chosen.memory_bytes == it.memory_bytes && chosen.policy == it.policy
            });
            fields.push(format!("{}{}", if is_chosen { "→ " } else { "" }, percent(it.hit_ratio)));
        }
        if is_priced {
            let costs = row.iter().flatten().filter_map(|it| advice.costs(it));
            let least = costs.map(|costs| costs.total()).fold(f64::INFINITY, f64::min);
            fields.push(money(least));
        }
        table.add_row(fields);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Everything that was played, and whether of a sample.
fn played(advice: &Advice) -> Vec<(Candidate, bool)> {
    let is_sampled = advice.rate < 1.0;
    let others = advice.chosen.iter().flat_map(|chosen| &chosen.others);
    let mut all: Vec<(Candidate, bool)> =
        advice.curves.iter().chain(others).map(|it| (*it, is_sampled)).collect();
    all.extend(advice.confirmed.iter().map(|it| (*it, false)));
    let order = |it: &Candidate| advice.policies.iter().position(|&policy| policy == it.policy);
    all.sort_by_key(|(it, is_sampled)| (order(it), it.memory_bytes, *is_sampled));
    all.dedup();
    all
}

/// No field needs quotes: policies are plain names, the rest are numbers.
fn csv(advice: &Advice, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", COLUMNS.join(","))?;
    for (it, is_sampled) in played(advice) {
        let (low, high) = it.band();
        let month = advice.costs(&it).map_or_else(String::new, |it| format!("{:.4}", it.total()));
        let is_advised = advice.chosen.as_ref().is_some_and(|chosen| chosen.candidate == it);
        writeln!(
            out,
            "{},{},{},{},{:.6},{low:.6},{high:.6},{is_sampled},{month},{is_advised}",
            it.policy,
            it.memory_bytes,
            advice.wish.fleet(it.memory_bytes).total_bytes(),
            advice.scouted.reads,
            it.hit_ratio,
        )?;
    }
    Ok(())
}

fn json(advice: &Advice) -> Value {
    let six = |ratio: f64| (ratio * 1e6).round() / 1e6;
    let plain = |it: &Candidate| {
        let (low, high) = it.band();
        json!({
            "policy": it.policy.name(),
            "memory_bytes": it.memory_bytes,
            "hit_ratio": six(it.hit_ratio),
            "hit_ratio_low": six(low),
            "hit_ratio_high": six(high),
        })
    };
    let costs = |costs: &Costs| {
        json!({
            "memory": costs.memory,
            "requests": costs.requests,
            "waiting": costs.waiting,
            "backend": costs.backend,
            "backend_replicas": costs.replicas,
            "total": costs.total(),
        })
    };
    let pays = |each: PerRequest, hit_ratio: f64| {
        json!({
            "hit": each.hit,
            "miss": each.miss,
            "direct": each.direct,
            "mean": each.mean(hit_ratio),
            "pays": each.pays(hit_ratio),
            "break_even_hit_ratio": each.break_even(),
        })
    };
    let chosen = advice.chosen.as_ref().map(|chosen| {
        let hit_ratio = chosen.candidate.hit_ratio;
        let mut value = plain(&chosen.candidate);
        value["command"] = json!(commands(advice)[0]);
        value["nodes"] = json!(chosen.fleet.nodes);
        value["copies"] = json!(chosen.fleet.copies);
        value["node_memory_bytes"] = json!(chosen.fleet.memory_bytes);
        value["machine_bytes"] = json!(chosen.fleet.machine_bytes());
        value["total_bytes"] = json!(chosen.fleet.total_bytes());
        value["tenths"] = chosen.tenths.iter().map(|&ratio| six(ratio)).collect();
        value["month"] = chosen.costs.map_or(Value::Null, |(with, without)| {
            json!({ "with_cache": costs(&with), "without_cache": costs(&without) })
        });
        value["time"] = advice.ask.time.map_or(Value::Null, |time| pays(time, hit_ratio));
        let each = advice.ask.prices.and_then(|prices| prices.money);
        value["money"] = each.map_or(Value::Null, |each| pays(each, hit_ratio));
        value["others"] = chosen.others.iter().map(plain).collect();
        value
    });
    json!({
        "trace": advice.trace,
        "format": advice.format,
        "requests": advice.scouted.requests,
        "reads": advice.scouted.reads,
        "objects": advice.scouted.objects,
        "weight_bytes": advice.scouted.weight_bytes,
        "reads_too_large": advice.scouted.reads_too_large,
        "duration_s": advice.scouted.duration_s(),
        "reads_per_s": advice.load.map(|load| load.mean_per_s),
        "busiest_reads_per_s": advice.load.map(|load| load.busiest_per_s),
        "malformed": advice.found.malformed,
        "lost": advice.found.notes.lost,
        "readings": advice.readings,
        "sampled": advice.rate,
        "target_hit_ratio": advice.ask.target,
        "ceiling_hit_ratio": six(advice.ceiling.hit_ratio),
        "ceiling_tenths": advice.ceiling_tenths.iter().map(|&ratio| six(ratio)).collect::<Vec<_>>(),
        "knee": advice.knee.as_ref().map(plain),
        "advice": chosen,
        "played": played(advice)
            .iter()
            .map(|(it, is_sampled)| {
                let mut value = plain(it);
                value["sampled"] = json!(is_sampled);
                value["month"] = json!(advice.costs(it).map(|costs| costs.total()));
                value
            })
            .collect::<Vec<_>>(),
    })
}
