//! `cache-ctl mrc`: what a running server would hit with more memory, or with less.
//!
//! The server keeps the curve of its own traffic. It is asked by `stats mrc` where clients connect, or a node
//! of a cluster at its admin port; both say the same.

use std::io::{self, Write};

use crate::admin::model::{Mrc, MrcPoint};
use crate::admin::{Admin, AdminError, Said};
use crate::connection::{Connection, ServerError};
use crate::output;

const MIB: u64 = 1 << 20;

/// Asks a node at its admin port.
///
/// # Errors
///
/// When it does not answer, or keeps no curve.
pub fn ask_node(admin: &Admin) -> Result<Said<Mrc>, AdminError> {
    admin.get("/node/mrc")
}

/// Asks a server where clients connect. `None` where the curve is switched off.
///
/// # Errors
///
/// When it does not answer, or is another one.
pub fn ask_server(server: &mut Connection) -> Result<Option<Mrc>, ServerError> {
    let mut stats = Vec::new();
    let asked = server.stats(b"mrc", |name, value| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        stats.push((text(name), text(value)));
    });
    match asked {
        Err(ServerError::Unknown { .. }) => Err(ServerError::Unknown { command: "stats mrc" }),
        Err(error) => Err(error),
        Ok(()) => of_stats(&stats),
    }
}

/// The curve in the answer to `stats mrc`.
fn of_stats(stats: &[(String, String)]) -> Result<Option<Mrc>, ServerError> {
    let text = |name: &'static str| {
        let stat = stats.iter().find(|(known, _)| known == name);
        stat.map(|(_, value)| value.as_str()).ok_or(ServerError::Untold { name })
    };
    if text("mrc_enabled")? != "1" {
        return Ok(None);
    }
    let number =
        |name: &'static str| text(name)?.parse::<u64>().map_err(|_| ServerError::Untold { name });
    let share =
        |name: &'static str| text(name)?.parse::<f64>().map_err(|_| ServerError::Untold { name });
    let seconds = |name| number(name).map(|it| u32::try_from(it).unwrap_or(u32::MAX));
    let mut points: Vec<MrcPoint> = Vec::new();
    for (name, value) in stats {
        let parts = name.strip_prefix("mrc:").and_then(|rest| rest.split_once(':'));
        let Some((memory, what)) = parts else { continue };
        let Ok(memory_bytes) = memory.parse() else { continue };
        if points.last().is_none_or(|last| last.memory_bytes != memory_bytes) {
            points.push(MrcPoint { memory_bytes, ..MrcPoint::default() });
        }
        let Some(point) = points.last_mut() else { continue };
        let share = || value.parse().map_err(|_| ServerError::Untold { name: "mrc:" });
        match what {
            "items_bytes" => point.items_bytes = value.parse().unwrap_or_default(),
            "hit_ratio" => point.hit_ratio = share()?,
            "low" => point.low = share()?,
            "high" => point.high = share()?,
            _ => {}
        }
    }
    Ok(Some(Mrc {
        memory_bytes: number("mrc_memory_bytes")?,
        policy: text("mrc_policy")?.to_owned(),
        requests: number("mrc_requests")?,
        hit_ratio: share("mrc_hit_ratio")?,
        sampled_requests: number("mrc_sampled_requests")?,
        sampled_objects: number("mrc_sampled_objects")?,
        sampled_share: share("mrc_sampled_share")?,
        lost: number("mrc_lost")?,
        bytes: number("mrc_bytes")?,
        seconds: seconds("mrc_seconds")?,
        half_life_seconds: seconds("mrc_half_life_seconds")?,
        points,
    }))
}

/// Writes it for a person.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(mut out: impl Write, curve: &Mrc) -> io::Result<()> {
    let Mrc { memory_bytes, policy, requests, hit_ratio, points, .. } = curve;
    let time = output::seconds(u64::from(curve.seconds) * 1000);
    let half_life = output::seconds(u64::from(curve.half_life_seconds) * 1000);
    writeln!(
        out,
        "-m {}, {policy}: {requests} reads in {time}, those before {half_life} weighing half; {} hit",
        memory(*memory_bytes),
        percent(*hit_ratio)
    )?;
    let present = points.iter().find(|point| point.memory_bytes == *memory_bytes);
    let Some(present) = present else {
        return writeln!(out, "nothing was read yet that a curve could be told from");
    };
    writeln!(
        out,
        "the curve of lru, from {} of these reads, of {} objects ({} of all):\n",
        curve.sampled_requests,
        curve.sampled_objects,
        percent(curve.sampled_share)
    )?;
    let mut table = output::table(&["memory", "change", "hit ratio", "points", "between"]);
    for point in points {
        table.add_row([
            memory(point.memory_bytes),
            change(*memory_bytes, point.memory_bytes),
            percent(point.hit_ratio),
            format!("{:+.1}", (point.hit_ratio - present.hit_ratio) * 100.0),
            format!("{} and {}", percent(point.low), percent(point.high)),
        ]);
    }
    output::write_table(&mut out, &table)?;
    writeln!(out)?;
    for (point, word) in [(neighbour(curve, 2, 1), "more"), (neighbour(curve, 1, 2), "less")] {
        let Some(point) = point else { continue };
        let difference = memory(point.memory_bytes.abs_diff(*memory_bytes));
        let points = (point.hit_ratio - present.hit_ratio) * 100.0;
        writeln!(out, "{difference} {word} would do: hit ratio {points:+.1} points")?;
    }
    if policy != "lru" {
        writeln!(
            out,
            "the server evicts by {policy} and hits {} now, where lru would {}: take the differences",
            percent(*hit_ratio),
            percent(present.hit_ratio)
        )?;
    }
    Ok(())
}

/// The point at so many times the present memory.
fn neighbour(curve: &Mrc, times: u64, over: u64) -> Option<&MrcPoint> {
    let wanted = curve.memory_bytes / over * times;
    curve.points.iter().min_by_key(|point| point.memory_bytes.abs_diff(wanted))
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    // Of a small share the first digits count, whatever comes before them.
    if percent > 0.0 && percent < 0.1 { format!("{percent:.4}%") } else { format!("{percent:.1}%") }
}

fn memory(bytes: u64) -> String {
    if bytes.is_multiple_of(MIB) {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{:.1} MiB", bytes as f64 / MIB as f64)
    }
}

fn change(present: u64, other: u64) -> String {
    match other.checked_sub(present) {
        Some(0) => String::new(),
        Some(more) => format!("+{}", memory(more)),
        None => format!("-{}", memory(present - other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Mrc {
        let example = include_str!("../../cache-server/src/admin/examples/mrc.json");
        serde_json::from_str(example).unwrap()
    }

    fn written(curve: &Mrc) -> String {
        let mut out = Vec::new();
        write(&mut out, curve).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn curve_says_what_more_memory_would_do_and_what_less() {
        let text = written(&example());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("-m 64 MiB, wtinylfu: 1843200 reads in 90 min"), "{text}");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(lines[4]),
            ["32", "MiB", "-32", "MiB", "55.2%", "-13.7", "53.0%", "and", "57.4%"]
        );
        assert!(text.contains("64 MiB more would do: hit ratio +11.2 points"), "{text}");
        assert!(text.contains("32 MiB less would do: hit ratio -13.7 points"), "{text}");
        assert!(text.contains("hits 73.1% now, where lru would 68.9%"), "{text}");
    }

    #[test]
    fn server_that_was_not_read_yet_says_so() {
        let text = written(&Mrc { points: Vec::new(), requests: 0, ..example() });
        assert!(text.contains("nothing was read yet"), "{text}");
    }

    #[test]
    fn statistics_and_the_admin_port_say_the_same() {
        let want = example();
        let mut stats = vec![("mrc_enabled".to_owned(), "1".to_owned())];
        let json = serde_json::to_value(&want).unwrap();
        let text = |value: &serde_json::Value| value.to_string().trim_matches('"').to_owned();
        for (name, value) in json.as_object().unwrap().iter().filter(|(name, _)| *name != "points")
        {
            stats.push((format!("mrc_{name}"), text(value)));
        }
        for point in json["points"].as_array().unwrap() {
            for name in ["items_bytes", "hit_ratio", "low", "high"] {
                let memory = &point["memory_bytes"];
                stats.push((format!("mrc:{memory}:{name}"), text(&point[name])));
            }
        }
        assert_eq!(of_stats(&stats).unwrap(), Some(want));
        assert_eq!(of_stats(&[("mrc_enabled".into(), "0".into())]).unwrap(), None);
        stats.retain(|(name, _)| name != "mrc_requests");
        assert!(matches!(of_stats(&stats), Err(ServerError::Untold { name: "mrc_requests" })));
    }
}
