//! An `Advice` as a page to send to a colleague: the answer, curves with the advised point and the knee
//! marked, what a month costs by size, how the hit ratio moves over the log, and what all that rests on.

use std::fmt::{self, Write};

use eviction::Kind;

use super::choice::Candidate;
use super::report::{
    answer, assumptions, certainty, commands, headline, mib, next, percent, rows, verdict,
};
use super::run::{Advice, Chosen};
use super::watch::TENTHS;
use crate::html;
use crate::plot::{
    self, Across, Chart, DrawError, Form, Level, Line, Mark, Spot, Up, escaped, money,
};
use crate::replay::Unit;

/// What the axis of sizes says.
const MEMORY: &str = "memory of the cache (-m)";

/// A cost without a cache that is so many times the largest with one is told and not drawn.
const DRAWN_TIMES: f64 = 3.0;

/// Costs above so many times the least are cut off: what matters is where the curve is low.
const COSTS_DRAWN: f64 = 4.0;

/// Draws an advice in the form asked for; `command` is the command line that made it.
///
/// # Errors
///
/// There is no room for the picture.
pub fn draw(advice: &Advice, form: Form, command: &str) -> Result<Vec<u8>, DrawError> {
    if form == Form::Html {
        let mut out = String::new();
        page(advice, command, &mut out)?;
        return Ok(out.into_bytes());
    }
    let chart = hit_ratios(advice);
    let title = format!("{}: {}", chart.title, html::name_of(&advice.trace));
    plot::draw_alone(&Chart { title, ..chart }, form == Form::Png)
}

fn page(advice: &Advice, command: &str, out: &mut String) -> fmt::Result {
    html::open(&format!("How large a cache for {}", html::name_of(&advice.trace)), out)?;
    answer_box(advice, out)?;
    write!(out, "<dl>")?;
    for (what, why) in answer(advice) {
        write!(out, "<dt>{what}</dt><dd>{}</dd>", escaped(&why))?;
    }
    write!(out, "</dl>")?;
    plot::figure(&hit_ratios(advice), out)?;
    if let Some(costs) = costs(advice) {
        plot::figure(&costs, out)?;
    }
    if let Some(chosen) = &advice.chosen {
        plot::figure(&course(advice, chosen), out)?;
    }
    html::list("How sure this is", &certainty(advice), out)?;
    html::list("What it rests on", &assumptions(advice), out)?;
    let next = next(advice);
    if !next.is_empty() {
        html::list("What to ask next", &next, out)?;
    }
    figures(advice, out)?;
    html::close(command, out)
}

fn answer_box(advice: &Advice, out: &mut String) -> fmt::Result {
    let class = if advice.chosen.is_some() { "answer" } else { "answer none" };
    write!(out, "<div class=\"{class}\"><p class=\"big\">{}</p>", escaped(&headline(advice)))?;
    if let Some(verdict) = verdict(advice) {
        write!(out, "<p>{}</p>", escaped(&verdict))?;
    }
    let commands = commands(advice);
    if !commands.is_empty() {
        write!(out, "<pre>{}</pre>", escaped(&commands.join("\n")))?;
    }
    write!(out, "</div>")
}

/// The candidates of one policy, from small to large.
fn of_policy(advice: &Advice, policy: Kind) -> impl Iterator<Item = &Candidate> {
    advice.curves.iter().filter(move |it| it.policy == policy)
}

/// Hit ratios by memory.
fn hit_ratios(advice: &Advice) -> Chart {
    let chosen = advice.chosen.as_ref().map(|chosen| chosen.candidate);
    let line = |(colour, &policy): (usize, &Kind)| Line {
        name: policy.to_string(),
        colour,
        is_strong: chosen.is_none_or(|chosen| chosen.policy == policy),
        spots: of_policy(advice, policy)
            .map(|it| Spot { x: it.memory_bytes as f64, y: it.hit_ratio, band: it.band() })
            .collect(),
    };
    let mark = |it: &Candidate, what: &str| Mark {
        x: it.memory_bytes as f64,
        y: it.hit_ratio,
        label: format!("{what}: {}", mib(it.memory_bytes)),
    };
    let knee = advice.knee.filter(|knee| Some(*knee) != chosen);
    let advised = if advice.knee == chosen { "knee, advised" } else { "advised" };
    let marks = chosen.iter().map(|it| mark(it, advised));
    let mut levels = vec![Level {
        y: advice.ceiling.hit_ratio,
        label: format!("ceiling {}", percent(advice.ceiling.hit_ratio)),
    }];
    if let Some(target) = advice.ask.target {
        levels.push(Level { y: target, label: format!("target {}", percent(target)) });
    }
    Chart {
        title: "Hit ratio by memory".into(),
        across: Across::Sizes(Unit::Bytes, MEMORY),
        up: Up::Share,
        lines: advice.policies.iter().enumerate().map(line).collect(),
        levels,
        marks: marks.chain(knee.iter().map(|it| mark(it, "knee"))).collect(),
    }
}

/// What a month costs by memory; none without prices.
fn costs(advice: &Advice) -> Option<Chart> {
    let (prices, load) = advice.ask.prices.zip(advice.load).filter(|_| advice.weighs())?;
    let of = |it: &Candidate| advice.costs(it).map_or(0.0, |costs| costs.total());
    let least = advice.curves.iter().map(of).fold(f64::INFINITY, f64::min);
    let chosen = advice.chosen.as_ref();
    let line = |(colour, &policy): (usize, &Kind)| Line {
        name: policy.to_string(),
        colour,
        is_strong: chosen.is_none_or(|chosen| chosen.candidate.policy == policy),
        spots: of_policy(advice, policy)
            .map(|it| (it.memory_bytes as f64, of(it)))
            .filter(|(_, cost)| *cost <= least * COSTS_DRAWN)
            .map(|(x, y)| Spot { x, y, band: (y, y) })
            .collect(),
    };
    let lines: Vec<Line> = advice.policies.iter().enumerate().map(line).collect();
    let most = lines.iter().flat_map(|line| &line.spots).map(|spot| spot.y).fold(0.0, f64::max);
    let without = prices.without_cache(load).total();
    let level = Level { y: without, label: format!("without a cache {}", money(without)) };
    let mark = chosen.map(|chosen| {
        let (x, y) = (chosen.candidate.memory_bytes as f64, of(&chosen.candidate));
        Mark { x, y, label: format!("advised: {}", money(y)) }
    });
    Some(Chart {
        title: "What a month costs, by memory".into(),
        across: Across::Sizes(Unit::Bytes, MEMORY),
        up: Up::Money,
        lines,
        levels: Some(level).filter(|level| level.y <= most * DRAWN_TIMES).into_iter().collect(),
        marks: mark.into_iter().collect(),
    })
}

/// How the advised cache fares from tenth to tenth of the log, beside one that holds everything.
fn course(advice: &Advice, chosen: &Chosen) -> Chart {
    let line = |name: String, colour, is_strong, tenths: &[f64]| Line {
        name,
        colour,
        is_strong,
        spots: (1..=TENTHS)
            .zip(tenths)
            .map(|(tenth, &y)| Spot { x: tenth as f64, y, band: (y, y) })
            .collect(),
    };
    let policy = chosen.candidate.policy;
    let colour = advice.policies.iter().position(|&it| it == policy).unwrap_or_default();
    let other = if colour == 5 { 0 } else { 5 };
    Chart {
        title: "Hit ratio over the log: the advised cache, and one that holds everything".into(),
        across: Across::Tenths,
        up: Up::Share,
        lines: vec![
            line("all".into(), other, false, &advice.ceiling_tenths),
            line(policy.to_string(), colour, true, &chosen.tenths),
        ],
        levels: Vec::new(),
        marks: Vec::new(),
    }
}

fn figures(advice: &Advice, out: &mut String) -> fmt::Result {
    write!(
        out,
        "<details><summary>Figures</summary><div class=\"scroll\"><table><tr><th>-m</th>\
         <th>machines</th>"
    )?;
    advice.policies.iter().try_for_each(|policy| write!(out, "<th>{policy}</th>"))?;
    write!(out, "</tr>")?;
    let chosen = advice.chosen.as_ref().map(|chosen| chosen.candidate.memory_bytes);
    for (size, row) in rows(advice) {
        let class = if chosen == Some(size) { " class=\"chosen\"" } else { "" };
        let machines = advice.wish.fleet(size).total_bytes();
        write!(out, "<tr{class}><td>{}</td><td>{}</td>", mib(size), mib(machines))?;
        for it in row.iter().flatten() {
            write!(out, "<td>{}", percent(it.hit_ratio))?;
            if it.margin > 0.0 {
                write!(out, " ± {}", percent(it.margin))?;
            }
            write!(out, "</td>")?;
        }
        write!(out, "</tr>")?;
    }
    write!(out, "</table></div></details>")
}
