use clap::{CommandFactory, Parser};

use super::{Cli, Command, StoreCommand, offsets};

#[test]
fn the_definitions_agree_with_each_other() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_with_an_example() {
    fn without_example(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        // What the broker starts itself is not for people.
        if !command.is_hide_set()
            && !command.get_after_help().is_some_and(|help| help.to_string().contains("Example"))
        {
            found.push(path.clone());
        }
        for command in command.get_subcommands() {
            without_example(command, &path, found);
        }
    }
    let mut found = Vec::new();
    without_example(&Cli::command(), "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_range_of_offsets_includes_both_ends() {
    assert_eq!(offsets("1200..1207"), Ok(1200..=1207));
    assert_eq!(offsets("5..5"), Ok(5..=5));
    assert_eq!(offsets("7..5"), Err("7 is after 5".into()));
    for wrong in ["", "5", "..5", "5..", "5..=6", "a..b", "-1..5"] {
        assert!(offsets(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_commands_of_other_modules_get_their_arguments() {
    let parse = |words: &str| Cli::try_parse_from(words.split(' ')).unwrap().command;
    assert!(matches!(parse("sluice run a.yaml dir"), Command::Run { paths } if paths.len() == 2));
    let Command::Store { command: StoreCommand::Repair { accept_loss, .. } } =
        parse("sluice store repair data --accept-loss 3..9")
    else {
        panic!("another command")
    };
    assert_eq!(accept_loss, 3..=9);
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for words in [
        "sluice",
        "sluice nonsense",
        "sluice run",
        "sluice run --nonsense x.yaml",
        "sluice triggers nonsense",
        "sluice triggers --unmatched show x",
        "sluice dlq",
        "sluice dlq show",
        "sluice dlq redrive",
        "sluice dlq redrive --to x",
        "sluice dlq redrive id --all",
        "sluice dlq redrive id --trigger x",
        "sluice dlq purge --yes",
        "sluice dlq purge --all --type x",
        "sluice events show",
        "sluice events list --limit 0",
        "sluice events list --since soon",
        "sluice publish",
        "sluice publish --type x",
        "sluice publish file --type x --source /y",
        "sluice publish --type x --source /y --ext A=1",
        "sluice store repair data",
        "sluice sink --status 99",
    ] {
        let code = match Cli::try_parse_from(words.split(' ')) {
            Err(error) => error.exit_code(),
            Ok(Cli { log, command }) => {
                let error = command.execute(log).expect_err(words);
                assert!(matches!(error, super::Error::Usage(_)), "{words}: {error}");
                2
            }
        };
        assert_eq!(code, 2, "{words}");
    }
}
