//! The command line, and the seconds that it and the query share.

use std::ffi::OsString;
use std::time::Duration;

pub(crate) const HELP: &str = "\
Usage: shutdown [--listen ADDR [--grace SECONDS] [--task-limit SECONDS]]

Without arguments it drives itself and prints a verdict for each case.

  --listen ADDR         serve /?time=SECONDS, /work?time=SECONDS and /ticks there until SIGINT or SIGTERM, e.g. 127.0.0.1:3000
  --grace SECONDS       how long running tasks may go on after the signal; a second one skips it [10]
  --task-limit SECONDS  how long any task may take [60]
  --help                this text
";

/// A day: whoever asks for more has most likely mistaken the unit.
const MOST_SECONDS: f64 = 86_400.0;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) grace: Duration,
    pub(crate) task_limit: Duration,
}

#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Demo,
    Listen(String, Options),
}

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut address = None;
    let mut options = Options { grace: Duration::from_secs(10), task_limit: Duration::from_secs(60) };
    let mut tuned = None;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let arg = text(arg)?;
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let value = || match inline {
            Some(value) => Ok(value),
            None => args.next().ok_or(format!("{name} needs a value")).and_then(text),
        };
        match name {
            "--help" | "-h" => return Ok(Command::Help),
            "--listen" => address = Some(value()?),
            "--grace" => options.grace = seconds(&value()?).map_err(|why| format!("{name} {why}"))?,
            "--task-limit" => options.task_limit = seconds(&value()?).map_err(|why| format!("{name} {why}"))?,
            _ => return Err(format!("unknown argument {arg:?}")),
        }
        if name != "--listen" {
            tuned = Some(name.to_owned());
        }
    }
    match (address, tuned) {
        (Some(address), _) => Ok(Command::Listen(address, options)),
        (None, Some(name)) => Err(format!("{name} needs --listen: what drives itself has times of its own")),
        (None, None) => Ok(Command::Demo),
    }
}

fn text(arg: OsString) -> Result<String, String> {
    arg.into_string().map_err(|arg| format!("{arg:?} is not UTF-8"))
}

/// A number of seconds, or what is wrong with it as the end of a sentence that begins with its name.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = match text.parse() {
        Ok(seconds) if !f64::is_nan(seconds) => seconds,
        _ => return Err(format!("has to be a number of seconds, such as 1.5, and {text:?} is none")),
    };
    if seconds < 0.0 {
        return Err(format!("cannot be negative, and {text:?} is"));
    }
    if seconds > MOST_SECONDS {
        return Err(format!("can be {MOST_SECONDS} seconds at most, and {text:?} is more"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|err| format!("cannot be {text:?}: {err}"))
}
