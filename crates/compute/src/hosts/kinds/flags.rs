//! The flags of `innkeeper host add` that depend on the host's kind: the command accepts the flags of all kinds.

use anyhow::Context;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{Ask, all};
use crate::hosts::settings::HostSettings;

const KIND: &str = "kind";

/// `--kind` and the flags of every kind.
#[derive(Debug, Clone)]
pub struct KindFlags(ArgMatches);

impl KindFlags {
    /// Settings of the chosen kind, from its flags. `ask` supplies the secrets.
    pub fn settings(&self, ask: &Ask<'_>) -> anyhow::Result<HostSettings> {
        let name = self.0.get_one::<String>(KIND).context("--kind is missing")?;
        let kind = all().into_iter().find(|kind| kind.name == name).context("there is no driver of this kind")?;
        (kind.from_flags)(&self.0, ask)
    }
}

impl FromArgMatches for KindFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.clone()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = matches.clone();
        Ok(())
    }
}

impl Args for KindFlags {
    fn augment_args(command: Command) -> Command {
        let names = all().into_iter().map(|kind| PossibleValue::new(kind.name).help(kind.about));
        let kind = Arg::new(KIND)
            .long(KIND)
            .value_name("KIND")
            .value_parser(PossibleValuesParser::new(names))
            .default_value(all().first().map(|kind| kind.name))
            .help("Driver of the host");
        command.arg(kind).args(flags())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flags of every kind, each once. A flag that several kinds share is listed among the general options; if its help
/// differs, that of each kind is shown.
fn flags() -> Vec<Arg> {
    let mut flags: Vec<(Arg, Vec<(String, String)>)> = Vec::new();
    for kind in all() {
        for flag in (kind.flags)(Command::new(kind.name)).get_arguments() {
            let heading = flag.get_help_heading().unwrap_or(kind.name).to_owned();
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            match flags.iter_mut().find(|(known, _)| known.get_id() == flag.get_id()) {
                Some((_, says)) => says.push((heading, help)),
                None => flags.push((flag.clone().display_order(None::<usize>), vec![(heading, help)])),
            }
        }
    }
    flags.into_iter().map(|(flag, says)| shared(flag, &says)).collect()
}

fn shared(flag: Arg, says: &[(String, String)]) -> Arg {
    let [(_, first), others @ ..] = says else { return flag };
    if others.is_empty() {
        return flag;
    }
    let flag = flag.help_heading(None::<&'static str>);
    if others.iter().all(|(_, help)| help == first) {
        return flag;
    }
    flag.help(says.iter().map(|(heading, help)| format!("{heading}: {help}")).collect::<Vec<_>>().join(". "))
}
