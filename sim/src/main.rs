//! `cache-sim`: parse the arguments, run, print.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use sim::capture::End;
use sim::cli::capture::CaptureArgs;
use sim::cli::curve::{CurveArgs, MergeArgs};
use sim::cli::size::SizeArgs;
use sim::cli::what_if::WhatIfArgs;
use sim::cli::{Cli, Command, DescribeArgs, GenerateCommand, RunArgs, ZipfArgs};
use sim::console::Console;
use sim::curve::run::CurveReport;
use sim::partial::Saved;
use sim::plot::Form;
use sim::run::Observer;
use sim::tallies::Tallies;
use sim::trace::{Access, oracle_general, zipf};
use sim::{curve, describe, html, partial, plot, report, run, sizing, what_if};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Size(args) => advise(&args),
        Command::Run(args) => run_plan(&args),
        Command::Curve(args) => draw_curve(&args),
        Command::Merge(args) => merge_parts(&args),
        Command::WhatIf(args) => ask_what_if(&args),
        Command::Describe(args) => describe_log(&args),
        Command::Capture(args) => capture_server(&args),
        Command::Generate(GenerateCommand::Zipf(args)) => generate_zipf(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _unheard = writeln!(io::stderr(), "cache-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `cache-sim size`.
fn advise(args: &SizeArgs) -> Result<()> {
    let plan = args.plan()?;
    let mut console = Console::new(plan.plan.source.to_string());
    let advice = sizing::run::run(&plan, &mut console)?;
    if let Some((path, form)) = args.plot() {
        write_picture(path, &sizing::page::draw(&advice, form, &command_line())?)?;
    }
    sizing::report::write(&advice, args.output(), &mut io::stdout().lock())?;
    Ok(console.summarise_advice(&advice, args.plot().map(|(path, _)| path))?)
}

/// `cache-sim run`.
fn run_plan(args: &RunArgs) -> Result<()> {
    let output = args.output();
    let (plan, dealing) = (args.plan()?, args.dealing()?);
    let mut console = Console::new(plan.source.to_string());
    let report = run::run_part(&plan, dealing, &mut console)?;
    if let Some(path) = args.save() {
        let tallies = Tallies::new(&report, dealing.part, plan.flags());
        if save(path, &Saved::Tallies(tallies))? == Shown::Already {
            return Ok(console.summarise(&report)?);
        }
    }
    report::write(&report, output, &mut io::stdout().lock())?;
    Ok(console.summarise(&report)?)
}

/// `cache-sim curve`.
fn draw_curve(args: &CurveArgs) -> Result<()> {
    let plan = args.plan()?;
    let mut console = Console::new(plan.plan.source.to_string());
    let report = curve::run::run(&plan, &mut console)?;
    draw(args.show().plot(), &report)?;
    if let Some(path) = args.save()
        && save(path, &Saved::Map(Box::new(report.map.clone())))? == Shown::Already
    {
        return Ok(console.summarise_curve(&report)?);
    }
    curve::report::write(&report, args.show().output(), &mut io::stdout().lock())?;
    Ok(console.summarise_curve(&report)?)
}

/// `cache-sim merge`.
fn merge_parts(args: &MergeArgs) -> Result<()> {
    let mut merged: Option<Saved> = None;
    for path in args.files() {
        let named = || path.display().to_string();
        let all = if path == Path::new("-") {
            partial::load_all(io::stdin().lock())
        } else {
            partial::load_all(BufReader::new(File::open(path).with_context(named)?))
        };
        for part in all.with_context(named)? {
            match &mut merged {
                None => merged = Some(part),
                Some(merged) => merged.merge(&part).with_context(named)?,
            }
        }
    }
    let merged = merged.context("there are no parts")?;
    if let Some(path) = args.save()
        && save(path, &merged)? == Shown::Already
    {
        return Ok(());
    }
    match merged {
        Saved::Map(map) => {
            let (sizes, points) = args.sizes();
            let report = CurveReport::of_map(*map, sizes, points);
            draw(args.show().plot(), &report)?;
            curve::report::write(&report, args.show().output(), &mut io::stdout().lock())?;
            Ok(Console::new(report.trace.clone()).summarise_curve(&report)?)
        }
        Saved::Tallies(tallies) => {
            report::write(&tallies.report(), args.show().output(), &mut io::stdout().lock())?;
            match tallies.parts_missing() {
                0 => Ok(()),
                missing => Ok(writeln!(io::stderr(), "{missing} parts of the log are not in it")?),
            }
        }
    }
}

/// Draws the picture of a curve, if one was asked for.
fn draw(path: Option<&Path>, report: &CurveReport) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    write_picture(path, &plot::draw_curve(report, Form::of(path)?, &command_line())?)
}

/// The command that runs, as a report names it: the program by its name, wherever it lies.
fn command_line() -> String {
    let words = std::env::args().skip(1);
    html::command_line(std::iter::once("cache-sim".to_owned()).chain(words))
}

fn write_picture(path: &Path, picture: &[u8]) -> Result<()> {
    std::fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether standard output has had what it is to have.
#[derive(PartialEq, Eq)]
enum Shown {
    Already,
    NotYet,
}

fn save(path: &Path, saved: &Saved) -> Result<Shown> {
    if path == Path::new("-") {
        // At one go: workers may share an output.
        let mut line = Vec::new();
        saved.save(&mut line)?;
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()?;
        return Ok(Shown::Already);
    }
    let write = || {
        let mut out = BufWriter::new(File::create(path)?);
        saved.save(&mut out)?;
        out.flush()
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Shown::NotYet)
}

/// `cache-sim what-if`.
fn ask_what_if(args: &WhatIfArgs) -> Result<()> {
    let (plan, question) = args.plan()?;
    let mut console = Console::new(plan.source.to_string());
    let answer = what_if::run(&plan, &question, &mut console)?;
    what_if::report::write(&answer, args.output(), &mut io::stdout().lock())?;
    Ok(console.summarise(&answer.log)?)
}

/// `cache-sim describe`.
fn describe_log(args: &DescribeArgs) -> Result<()> {
    let (source, format, is_strict) = args.log()?;
    let mut console = Console::new(source.to_string());
    let figures = describe::describe(&source, &format, is_strict, &mut console)?;
    Ok(describe::report::write(&figures, args.output(), &mut io::stdout().lock())?)
}

/// `cache-sim capture`.
fn capture_server(args: &CaptureArgs) -> Result<()> {
    let capture = args.capture();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second ends the program, should the first find it stuck.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut console = Console::new(capture.server.clone());
    console.begin("capture", None);
    let outcome = capture.run(&stop, |recorded| console.recorded(recorded));
    console.end();
    let (recorded, end) = outcome?;
    console.summarise_capture(&recorded, &capture.output)?;
    let kept = "what was recorded until then is kept";
    match end {
        End::Time | End::Requests | End::Stopped => Ok(()),
        End::Closed => bail!("the server closed the connection; {kept}"),
        End::Failed(error) => {
            Err(error).context(format!("the connection to the server failed; {kept}"))
        }
        End::Full(error) => {
            Err(error).context(format!("cannot write {}; {kept}", capture.output.display()))
        }
    }
}

/// `cache-sim generate zipf`.
fn generate_zipf(args: &ZipfArgs) -> Result<()> {
    let spec = args.spec();
    let requests = spec.requests;
    let generator = zipf::Generator::new(spec)?;
    // Each record tells when its object is next asked for, so the last is known before the first is written.
    let mut accesses: Vec<Access> = Vec::new();
    let count = usize::try_from(requests).unwrap_or(usize::MAX);
    let room = accesses.try_reserve_exact(count);
    room.with_context(|| format!("{requests} requests do not fit into memory"))?;
    accesses.extend(generator);
    let path = args.output();
    if path == Path::new("-") {
        return write_plain(io::stdout().lock(), &accesses).context("cannot write the trace");
    }
    let written = match path.extension() {
        Some(extension) if extension == "zst" => {
            File::create(path).and_then(|file| write_packed(file, &accesses))
        }
        _ => File::create(path).and_then(|file| write_plain(file, &accesses)),
    };
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn write_plain(out: impl Write, accesses: &[Access]) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    oracle_general::write(&mut out, accesses)?;
    out.flush()
}

fn write_packed(out: impl Write, accesses: &[Access]) -> io::Result<()> {
    let mut out = BufWriter::new(zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)?);
    oracle_general::write(&mut out, accesses)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?.flush()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
