//! What can be typed at the prompt of a chat: text, or a command that begins with a slash.

/// What `/?` prints.
pub const HELP: &str = "\
/set parameter NAME VALUE  change a parameter, as in /set parameter temperature 0.5
/set system TEXT           set the system message and begin anew
/set verbose | quiet       print counts and durations after each answer, or not
/show info                 the model and what it runs on
/show parameters           the parameters in force
/show system               the system message
/show template             the chat template
/clear                     forget the conversation
/bye                       leave
/?, /help                  this list
\"\"\"                        begin and end a text of several lines
Ctrl-C                     stop the answer
Ctrl-D                     leave";

/// A line that begins with a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Leave.
    Bye,
    /// Forget the conversation.
    Clear,
    /// Print [`HELP`].
    Help,
    /// Change a parameter; several values are several stop strings.
    Parameter {
        /// Its name.
        name: &'a str,
        /// The rest of the line.
        value: &'a str,
    },
    /// Set the system message.
    System(&'a str),
    /// Print durations, or not.
    Verbose(bool),
    /// Print something.
    Show(Show),
    /// None of these; the text says what was expected.
    Wrong(&'static str),
}

/// What `/show` can print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Model and machine.
    Info,
    /// The parameters in force.
    Parameters,
    /// The system message.
    System,
    /// The chat template.
    Template,
}

impl Command<'_> {
    /// Reads a line; none where it is text for the model.
    pub fn parse(line: &str) -> Option<Command<'_>> {
        let (word, rest) = split(line.trim());
        Some(match word {
            "/bye" | "/exit" | "/quit" => Command::Bye,
            "/clear" => Command::Clear,
            "/?" | "/help" => Command::Help,
            "/set" => set(rest),
            "/show" => match rest {
                "info" | "" => Command::Show(Show::Info),
                "parameters" => Command::Show(Show::Parameters),
                "system" => Command::Show(Show::System),
                "template" => Command::Show(Show::Template),
                _ => Command::Wrong("/show knows info, parameters, system and template"),
            },
            word if word.starts_with('/') => Command::Wrong("unknown command; /? lists them"),
            _ => return None,
        })
    }
}

fn set(rest: &str) -> Command<'_> {
    let (what, value) = split(rest);
    match what {
        "parameter" => match split(value) {
            ("", _) | (_, "") => Command::Wrong("expected /set parameter NAME VALUE"),
            (name, value) => Command::Parameter { name, value },
        },
        "system" => Command::System(value.trim_matches('"').trim()),
        "verbose" => Command::Verbose(true),
        "quiet" => Command::Verbose(false),
        _ => Command::Wrong("/set knows parameter, system, verbose and quiet"),
    }
}

/// The first word and the rest.
fn split(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let cases = [
            ("/bye", Some(Command::Bye)),
            ("  /clear ", Some(Command::Clear)),
            ("/?", Some(Command::Help)),
            ("/set parameter temperature 0.5", Some(Command::Parameter { name: "temperature", value: "0.5" })),
            ("/set  parameter  stop  a b", Some(Command::Parameter { name: "stop", value: "a b" })),
            ("/set parameter temperature", Some(Command::Wrong("expected /set parameter NAME VALUE"))),
            ("/set system \"Be brief.\"", Some(Command::System("Be brief."))),
            ("/set verbose", Some(Command::Verbose(true))),
            ("/set quiet", Some(Command::Verbose(false))),
            ("/show", Some(Command::Show(Show::Info))),
            ("/show template", Some(Command::Show(Show::Template))),
            ("hello /bye", None),
            ("", None),
        ];
        for (line, command) in cases {
            assert_eq!(Command::parse(line), command, "{line}");
        }
        for line in ["/what", "/set", "/set x", "/show x", "/byebye"] {
            assert!(matches!(Command::parse(line), Some(Command::Wrong(_))), "{line}");
        }
    }
}
