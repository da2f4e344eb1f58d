//! A suite as a page to send to a colleague: pictures, figures, and what they rest on. One file that
//! asks nothing of the network, light or dark as the reader's system is, for screens of any size.
//!
//! Letters that shrink with a picture cannot be read on a telephone, so each picture is drawn twice and
//! the one that fits is shown.

use std::fmt::{self, Write};

use sim::html;
use sim::plot::escaped;

use super::figures::{ComparedBy, Entrant, Environment, Measure, Report, Row};
use super::table::{NONE, in_words, lines};

/// Writes the page.
///
/// # Errors
/// What `out` answers.
pub fn page(report: &Report, out: &mut String) -> fmt::Result {
    html::open("Servers side by side", out)?;
    who_and_where(report, out)?;
    let names: Vec<&str> = report.servers.iter().map(|it| it.name.as_str()).collect();
    for (group, title, what) in [
        ("speed", "Work per processor time", "Ours as a multiple of the other's: more is better."),
        ("latency", "Latency", "Ours as a multiple of the other's: less is better."),
        ("memory", "Memory per item", "Ours as a multiple of the other's: less is better."),
        (
            "hits",
            "Hits at equal memory",
            "Ours less the other's, in percentage points: more is better.",
        ),
    ] {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        write!(out, "<h2>{title}</h2><p>{what}</p>")?;
        let bars = Bars::of(&rows, &names);
        if !bars.groups.is_empty() {
            figure(title, out, |width, out| bars.draw(title, width, out))?;
        }
        for row in &rows {
            let curves = Curves::of(row, &names);
            if group == "latency" && !curves.lines.is_empty() {
                let title = format!("Latency by percentile, {}", row.name);
                figure(&title, out, |width, out| curves.draw(&title, width, out))?;
            }
        }
        table(&rows, out)?;
    }
    html::list("What it rests on", &rests_on(report), out)?;
    html::close(&report.environment.command, out)
}

/// A picture for large screens and the same for small ones.
fn figure(
    title: &str,
    out: &mut String,
    draw: impl Fn(f64, &mut String) -> fmt::Result,
) -> fmt::Result {
    write!(out, "<figure><figcaption>{}</figcaption><div class=\"wide\">", escaped(title))?;
    draw(860.0, out)?;
    write!(out, "</div><div class=\"narrow\">")?;
    draw(380.0, out)?;
    write!(out, "</div></figure>")
}

fn who_and_where(report: &Report, out: &mut String) -> fmt::Result {
    let Environment { date, kernel, cpu, cores, memory_bytes, .. } = &report.environment;
    write!(out, "<dl>")?;
    for server in &report.servers {
        let version = server.version.as_deref().unwrap_or("took no part");
        let command = server.command.as_deref().unwrap_or_default();
        write!(
            out,
            "<dt>{}</dt><dd>{}<br><code>{}</code></dd>",
            escaped(&server.name),
            escaped(version),
            escaped(command)
        )?;
    }
    let gib = *memory_bytes as f64 / f64::from(1 << 30);
    write!(
        out,
        "<dt>machine</dt><dd>{}, cores used: {cores}, {gib:.0} GiB, Linux {}</dd><dt>date</dt><dd>{}</dd></dl>",
        escaped(cpu),
        escaped(kernel),
        escaped(date)
    )
}

fn rests_on(report: &Report) -> Vec<String> {
    let Environment { rounds, round_s, warm_up_s, noise_max, noise_allowed, .. } =
        report.environment;
    let Environment { server_cores, load_cores, syscalls, .. } = &report.environment;
    let mut lines = vec![
        format!(
            "{rounds} interleaved rounds a row, each of {round_s} s after {warm_up_s} s of load; servers \
             on core {server_cores:?}, load on {load_cores:?}. Medians of the rounds' ratios; whiskers \
             and intervals are where the true median lies with 95% confidence, or all rounds if there \
             are fewer than six."
        ),
        format!(
            "A round in which somebody waited for a core, or the hypervisor kept one, for more than \
             {:.1}% of the time {}.",
            100.0 * noise_max,
            if noise_allowed { "counts, and its row is marked" } else { "was run again" }
        ),
        "Every value read was compared with what its key must hold.".to_owned(),
        "The echo server moves the same bytes over epoll and keeps nothing.".to_owned(),
    ];
    lines.extend(syscalls.as_ref().map(|who| format!("System calls: {who}.")));
    for row in &report.rows {
        lines.extend(row.notes.iter().map(|note| format!("{}: {note}.", row.name)));
    }
    lines
}

fn table(rows: &[&Row], out: &mut String) -> fmt::Result {
    write!(
        out,
        "<div class=\"scroll\"><table><tr><th>row</th><th>measure</th><th>against</th><th>ours</th>\
         <th>theirs</th><th>compared</th><th>95%</th><th>all rounds</th><th>noise</th>\
         <th>calls</th><th>theirs</th></tr>"
    )?;
    let ends = |low: &str, high: &str| {
        if low == NONE { NONE.to_owned() } else { format!("{low} to {high}") }
    };
    for [
        row,
        measure,
        against,
        ours,
        theirs,
        compared,
        low,
        high,
        min,
        max,
        noise,
        calls,
        others,
    ] in rows.iter().flat_map(|row| lines(row))
    {
        let (interval, rounds) = (ends(&low, &high), ends(&min, &max));
        let cells =
            [row, measure, against, ours, theirs, compared, interval, rounds, noise, calls, others];
        write!(out, "<tr>")?;
        cells.iter().try_for_each(|cell| write!(out, "<td>{}</td>", escaped(cell)))?;
        write!(out, "</tr>")?;
    }
    write!(out, "</table></div><details><summary>What the rows are</summary><ul>")?;
    for row in rows {
        write!(out, "<li>{}: {}</li>", escaped(row.name), escaped(&row.about))?;
    }
    write!(out, "</ul></details>")
}

/// The size of all letters, in a picture's units, and what a line of them takes.
const LETTERS: f64 = 13.0;
const LINE: f64 = 20.0;
const BAR: f64 = 13.0;
/// Room at the right for a bar's figure.
const FIGURE: f64 = 44.0;
const MARGIN: f64 = 8.0;

/// Bars from a line at which both are equal, a group for each measure.
struct Bars {
    groups: Vec<(String, Vec<Bar>)>,
    /// Of the servers that have a bar: name and colour.
    legend: Vec<(String, usize)>,
    by: ComparedBy,
}

struct Bar {
    colour: usize,
    value: f64,
    low: f64,
    high: f64,
}

impl Bars {
    fn of(rows: &[&Row], names: &[&str]) -> Self {
        let by = |measure: &&Measure| measure.compared_by;
        let all = || rows.iter().flat_map(|row| row.measures.iter().map(move |it| (row, it)));
        let by = all().map(|(_, it)| it).find(|_| true).as_ref().map_or(ComparedBy::Ratio, by);
        let mut legend = Vec::new();
        let mut groups = Vec::new();
        for (row, measure) in all().filter(|(_, measure)| measure.compared_by == by) {
            let several = row.measures.len() > 1;
            let name =
                if several { format!("{}: {}", row.name, measure.name) } else { row.name.into() };
            let bars =
                measure.comparisons.iter().filter(|it| it.spread.median.is_finite()).map(|it| {
                    let against = it.against.as_str();
                    let known = names.iter().position(|name| *name == against);
                    let colour = known.unwrap_or(names.len());
                    if legend.iter().all(|(_, taken)| *taken != colour) {
                        legend.push((it.against.clone(), colour));
                    }
                    let ends = it.spread.interval.map(|interval| (interval.low, interval.high));
                    let (low, high) = ends.unwrap_or((it.spread.min, it.spread.max));
                    Bar { colour, value: it.spread.median, low, high }
                });
            groups.push((name, bars.collect()));
        }
        legend.sort_by_key(|(_, colour)| *colour);
        Self { groups, legend, by }
    }

    /// Where a value lies: ratios by their logarithm, so that twice and half are as far from equal.
    fn place(&self, value: f64) -> f64 {
        match self.by {
            ComparedBy::Ratio => value.max(0.01).log2(),
            ComparedBy::Difference => value,
        }
    }

    fn draw(&self, title: &str, width: f64, out: &mut String) -> fmt::Result {
        let bars = || self.groups.iter().flat_map(|(_, bars)| bars);
        let lowest = bars().map(|bar| self.place(bar.low)).fold(0.0, f64::min);
        let highest = bars().map(|bar| self.place(bar.high)).fold(0.0, f64::max);
        let reach = (highest - lowest).max(0.1);
        let from = if lowest < 0.0 { MARGIN + FIGURE } else { MARGIN };
        let step = (width - from - MARGIN - FIGURE) / reach;
        let x = |value: f64| from + (self.place(value) - lowest) * step;
        let equal = from - lowest * step;
        let legend_lines = self.legend_lines(width);
        let top = LINE * (1 + legend_lines) as f64 + 8.0;
        let bar_count = bars().count() as f64;
        let height = top + self.groups.len() as f64 * (LINE + 6.0) + bar_count * (BAR + 5.0) + 8.0;
        svg(title, width, height, out)?;
        self.draw_legend(width, out)?;
        for (tick, is_equal) in self.ticks(lowest, highest) {
            let (at, stroke) = (x(tick), if is_equal { 2.0 } else { 1.0 });
            write!(
                out,
                "<line class=\"rule\" stroke-width=\"{stroke}\" x1=\"{at:.1}\" x2=\"{at:.1}\" \
                 y1=\"{top:.1}\" y2=\"{height:.1}\"/>"
            )?;
            let name = if is_equal { "equal".to_owned() } else { tick_name(tick) };
            text(at, top - 5.0, "faint", "middle", &name, out)?;
        }
        let mut y = top;
        for (name, bars) in &self.groups {
            y += LINE;
            text(MARGIN, y - 5.0, "ink halo", "start", name, out)?;
            for bar in bars {
                self.draw_bar(bar, y, equal, &x, out)?;
                y += BAR + 5.0;
            }
            y += 6.0;
        }
        write!(out, "</svg>")
    }

    /// Values that are marked, of those between two places, and whether both sides are equal there.
    fn ticks(&self, lowest: f64, highest: f64) -> Vec<(f64, bool)> {
        if self.by == ComparedBy::Difference {
            return vec![(0.0, true)];
        }
        let ticks = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
        let within = |tick: &f64| *tick == 1.0 || (lowest..=highest).contains(&self.place(*tick));
        ticks.into_iter().filter(within).map(|tick| (tick, tick == 1.0)).collect()
    }

    fn draw_bar(
        &self,
        bar: &Bar,
        y: f64,
        equal: f64,
        x: &impl Fn(f64) -> f64,
        out: &mut String,
    ) -> fmt::Result {
        let (end, low, high) = (x(bar.value), x(bar.low), x(bar.high));
        let (left, wide) = (end.min(equal), (end - equal).abs().max(1.0));
        let (colour, middle) = (bar.colour % 6, y + BAR / 2.0);
        write!(
            out,
            "<rect class=\"f{colour}\" fill-opacity=\"0.75\" x=\"{left:.1}\" y=\"{y:.1}\" \
             width=\"{wide:.1}\" height=\"{BAR}\"/>"
        )?;
        if high - low > 1.0 {
            write!(
                out,
                "<path class=\"line\" fill=\"none\" stroke-width=\"1.2\" d=\"M{low:.1} {middle:.1}H{high:.1}M\
                 {low:.1} {:.1}v6M{high:.1} {:.1}v6\"/>",
                middle - 3.0,
                middle - 3.0
            )?;
        }
        let figure = in_words(self.by, bar.value);
        let is_left = self.place(bar.value) < 0.0;
        let (at, anchor) =
            if is_left { (low.min(end) - 5.0, "end") } else { (high.max(end) + 5.0, "start") };
        text(at, middle + 4.5, "ink", anchor, &figure, out)
    }

    /// What each entry of the legend takes.
    fn legend_widths(&self) -> impl Iterator<Item = f64> {
        self.legend.iter().map(|(name, _)| legend_width(name))
    }

    fn legend_lines(&self, width: f64) -> usize {
        places(self.legend_widths(), width).last().map_or(0, |(_, line)| line + 1)
    }

    fn draw_legend(&self, width: f64, out: &mut String) -> fmt::Result {
        for ((name, colour), (x, line)) in
            self.legend.iter().zip(places(self.legend_widths(), width))
        {
            legend_entry(name, *colour, x, line, out)?;
        }
        Ok(())
    }
}

/// A ratio that is marked, a power of two: `1/2`, `4x`.
fn tick_name(tick: f64) -> String {
    if tick < 1.0 { format!("1/{:.0}", 1.0 / tick) } else { format!("{tick:.0}x") }
}

/// What a name takes in a legend, its patch of colour included.
fn legend_width(name: &str) -> f64 {
    42.0 + name.chars().count() as f64 * LETTERS * 0.58
}

/// Where entries so wide stand: from left to right, line by line.
fn places(widths: impl Iterator<Item = f64>, width: f64) -> Vec<(f64, usize)> {
    let (mut x, mut line) = (MARGIN, 0);
    let mut places = Vec::new();
    for wide in widths {
        if x > MARGIN && x + wide > width {
            (x, line) = (MARGIN, line + 1);
        }
        places.push((x, line));
        x += wide;
    }
    places
}

fn legend_entry(name: &str, colour: usize, x: f64, line: usize, out: &mut String) -> fmt::Result {
    let (y, colour) = (line as f64 * LINE, colour % 6);
    write!(
        out,
        "<rect class=\"f{colour}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\"/>",
        y + 3.0
    )?;
    text(x + 17.0, y + 14.0, "ink", "start", name, out)
}

/// Latency by percentile, a line a server.
struct Curves {
    lines: Vec<Curve>,
}

struct Curve {
    name: String,
    colour: usize,
    /// How many nines the share of requests has, and microseconds.
    points: Vec<(f64, f64)>,
}

impl Curves {
    fn of(row: &Row, names: &[&str]) -> Self {
        let nines = |quantile: f64| -(1.0 - quantile).log10();
        let line = |entrant: &Entrant| {
            let colour = names.iter().position(|name| *name == entrant.server).unwrap_or(0);
            let points = entrant.latency.iter().filter(|it| (0.5..1.0).contains(&it.quantile));
            let points: Vec<_> = points.map(|it| (nines(it.quantile), it.us.max(1.0))).collect();
            Curve { name: entrant.server.clone(), colour, points }
        };
        let lines = row.servers.iter().map(line).filter(|curve| !curve.points.is_empty());
        Self { lines: lines.collect() }
    }

    fn draw(&self, title: &str, width: f64, out: &mut String) -> fmt::Result {
        let points = || self.lines.iter().flat_map(|curve| &curve.points);
        let nines_max = points().map(|(nines, _)| *nines).fold(1.0, f64::max);
        let low = points().map(|(_, us)| us.log10()).fold(f64::INFINITY, f64::min).floor();
        let high = points().map(|(_, us)| us.log10()).fold(f64::NEG_INFINITY, f64::max).ceil();
        let (left, right) = (56.0, MARGIN + 8.0);
        let legend = places(self.lines.iter().map(|curve| legend_width(&curve.name)), width);
        let top = LINE * (1 + legend.last().map_or(0, |(_, line)| *line)) as f64 + 10.0;
        let height = top + if width < 500.0 { 230.0 } else { 300.0 };
        let bottom = height - 46.0;
        let half = f64::log10(2.0);
        let x = |nines: f64| left + (nines - half) / (nines_max - half) * (width - left - right);
        let y = |us: f64| bottom - (us.log10() - low) / (high - low).max(1.0) * (bottom - top);
        svg(title, width, height, out)?;
        for (curve, (x, line)) in self.lines.iter().zip(&legend) {
            legend_entry(&curve.name, curve.colour, *x, *line, out)?;
        }
        let mut power = low;
        while power <= high {
            let (at, us) = (y(10_f64.powf(power)), 10_f64.powf(power));
            write!(
                out,
                "<line class=\"rule\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                width - right
            )?;
            text(left - 6.0, at + 4.5, "faint", "end", &microseconds(us), out)?;
            power += 1.0;
        }
        for (quantile, name) in
            [(0.5, "50%"), (0.9, "90%"), (0.99, "99%"), (0.999, "99.9%"), (0.9999, "99.99%")]
        {
            let nines = -f64::log10(1.0 - quantile);
            if nines <= nines_max {
                text(x(nines), bottom + 18.0, "faint", "middle", name, out)?;
            }
        }
        text((left + width) / 2.0, height - 8.0, "faint", "middle", "share of requests", out)?;
        for Curve { colour, points, .. } in &self.lines {
            write!(
                out,
                "<polyline fill=\"none\" class=\"s{}\" stroke-width=\"2\" stroke-linejoin=\"round\" points=\"",
                colour % 6
            )?;
            points
                .iter()
                .try_for_each(|(nines, us)| write!(out, "{:.1},{:.1} ", x(*nines), y(*us)))?;
            write!(out, "\"/>")?;
        }
        write!(out, "</svg>")
    }
}

/// A time as a person writes it.
fn microseconds(us: f64) -> String {
    if us >= 1e6 {
        format!("{:.0} s", us / 1e6)
    } else if us >= 1e3 {
        format!("{:.0} ms", us / 1e3)
    } else {
        format!("{us:.0} us")
    }
}

fn svg(title: &str, width: f64, height: f64, out: &mut String) -> fmt::Result {
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" role=\"img\" \
         aria-label=\"{}\"><rect class=\"ground\" width=\"{width}\" height=\"{height:.0}\"/>",
        escaped(title)
    )
}

fn text(x: f64, y: f64, class: &str, anchor: &str, words: &str, out: &mut String) -> fmt::Result {
    let words = escaped(words);
    write!(
        out,
        "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::figures::{Better, Percentile, SCHEMA, Server, Verdict};
    use super::*;
    use crate::noise::Noise;

    fn row(
        name: &'static str,
        group: &'static str,
        verdict: Verdict,
        measures: Vec<Measure>,
    ) -> Row {
        Row {
            name,
            group,
            about: format!("{name} <about>"),
            verdict,
            cores_are_shared: false,
            noise: Some(Noise { server_wait: 0.04, ..Noise::default() }),
            noise_by_round: vec![0.04],
            rounds_discarded: 0,
            servers: vec![Entrant {
                server: "redis".to_owned(),
                absent: Some("runs commands on one thread".to_owned()),
                ..Entrant::default()
            }],
            measures,
            notes: vec!["a <note>".to_owned()],
        }
    }

    fn measure(by: ComparedBy, ours: &[f64], theirs: &[f64]) -> Measure {
        let values =
            vec![("ours".to_owned(), ours.to_vec()), ("theirs".to_owned(), theirs.to_vec())];
        Measure::of("keys per CPU second", "1/s", Better::Higher, by, values)
    }

    /// A report with a row of every kind and fate.
    pub(in crate::suite) fn report() -> Report {
        let speed = || vec![measure(ComparedBy::Ratio, &[15.0, 16.0, 14.0], &[10.0, 10.0, 10.0])];
        let latency = |us: &[f64]| {
            let quantiles = [0.5, 0.99, 0.999];
            let point = |(quantile, &us): (f64, &f64)| Percentile { quantile, us };
            quantiles.into_iter().zip(us).map(point).collect()
        };
        let entrant = |server: &str, us: &[f64]| Entrant {
            server: server.to_owned(),
            latency: latency(us),
            ..Entrant::default()
        };
        let mut open_loop = row("open-loop", "latency", Verdict::Noisy, speed());
        open_loop.servers =
            vec![entrant("ours", &[40.0, 90.0, 200.0]), entrant("theirs", &[50.0, 120.0, 1500.0])];
        let mut noisy = row("set-16", "speed", Verdict::TooNoisy, Vec::new());
        noisy.noise = Some(Noise { load_wait: 0.31, ..Noise::default() });
        let hits = vec![measure(ComparedBy::Difference, &[61.25], &[60.0])];
        let server = |name: &str| Server {
            name: name.to_owned(),
            version: Some("1.0 <beta>".to_owned()),
            command: Some("server -p 1".to_owned()),
        };
        Report {
            schema: SCHEMA,
            environment: Environment {
                date: "2026-01-31 23:59 UTC".to_owned(),
                command: "cache-bench suite --ours 'a<b'".to_owned(),
                version: "0.1.0",
                kernel: "6.1".to_owned(),
                cpu: "A & B".to_owned(),
                cores: 2,
                memory_bytes: 8 << 30,
                server_cores: vec![1],
                load_cores: vec![0],
                rounds: 3,
                round_s: 2.0,
                warm_up_s: 0.3,
                noise_max: 0.02,
                noise_allowed: true,
                syscalls: Some("perf".to_owned()),
            },
            servers: ["ours", "theirs", "redis", "echo"].map(server).to_vec(),
            rows: vec![
                row("mixed", "speed", Verdict::Measured, speed()),
                noisy,
                row("evict", "speed", Verdict::Failed("it hung up".to_owned()), Vec::new()),
                row("two-threads", "speed", Verdict::Measured, speed()),
                open_loop,
                row("hits", "hits", Verdict::Measured, hits),
            ],
        }
    }

    fn written() -> String {
        let mut out = String::new();
        page(&report(), &mut out).unwrap();
        out
    }

    #[test]
    fn the_page_asks_nothing_of_the_network() {
        let page = written();
        for outside in ["<script", "<link", "<img", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme:dark") && page.contains("<svg"));
    }

    #[test]
    fn names_and_notes_are_no_markup() {
        let page = written();
        for text in
            ["a&lt;b", "1.0 &lt;beta&gt;", "A &amp; B", "a &lt;note&gt;", "mixed &lt;about&gt;"]
        {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("<beta>") && !page.contains("<note>") && !page.contains("<about>"));
    }

    #[test]
    fn a_row_without_figures_has_no_bar_and_says_why() {
        let page = written();
        assert!(page.contains("too noisy for figures") && page.contains("failed: it hung up"));
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
        assert_eq!(page.matches("<polyline").count(), 4, "a line a server, twice");
    }

    #[test]
    fn a_legend_breaks_where_the_screen_ends() {
        let places = places([100.0, 100.0, 100.0].into_iter(), 250.0);
        assert_eq!(places, [(8.0, 0), (108.0, 0), (8.0, 1)]);
    }
}
