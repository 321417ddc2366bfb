//! Quotes a value for the place of a shell command where it stands.
//!
//! Follows the text of the command as `sh` reads it: quotes, escapes, command substitution, comments. In places
//! where no quoting is right in every case (backticks, arithmetic, `${…}`, comments, here-documents), only
//! values without special characters are let in.

/// Follows a command and quotes what is filled in.
#[derive(Debug)]
pub(super) struct Quoter {
    /// The innermost last; the first is the command itself.
    stack: Vec<Context>,
    /// The last character was an escaping backslash.
    escaped: bool,
    /// The character before.
    before: char,
    /// What the next character follows, where that matters.
    after: After,
    /// A here-document began; where it ends is not followed.
    here_document: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    /// Outside quotes; within `$(`, how many parentheses are open.
    Bare {
        substitution: bool,
        parentheses: u32,
    },
    Double,
    Single,
    Backtick,
    /// `${…}`.
    Parameter,
    /// `$((…))`.
    Arithmetic {
        parentheses: u32,
    },
    Comment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Other,
    Dollar,
    /// `$(`, just entered.
    Parenthesis,
}

impl Default for Quoter {
    fn default() -> Self {
        Self {
            stack: vec![Context::Bare {
                substitution: false,
                parentheses: 0,
            }],
            escaped: false,
            before: '\n',
            after: After::Other,
            here_document: false,
        }
    }
}

impl Quoter {
    /// Follows a part of the command as it is written.
    pub(super) fn pass(&mut self, text: &str) {
        for character in text.chars() {
            self.step(character);
            self.before = character;
        }
    }

    /// `value` so that the shell reads it as it is. The error is a sentence fragment.
    pub(super) fn quote(&mut self, value: &str) -> Result<String, String> {
        let harmless = !value.is_empty() && value.chars().all(is_harmless);
        if value.contains('\0') {
            return Err("it holds a NUL byte".to_owned());
        }
        if self.escaped {
            return Err("a backslash stands before the placeholder".to_owned());
        }
        let unsafe_place = self.here_document
            || self.stack.iter().any(|context| {
                matches!(
                    context,
                    Context::Backtick | Context::Parameter | Context::Arithmetic { .. } | Context::Comment
                )
            });
        let quoted = if harmless {
            value.to_owned()
        } else if unsafe_place {
            return Err(format!(
                "{value:?} cannot be quoted where it stands (in a comment, a here-document, backticks, `${{…}}` or \
                 `$((…))`); put it into a shell variable first"
            ));
        } else {
            match self.top() {
                Context::Double => escape_double(value),
                Context::Single => value.replace('\'', "'\\''"),
                _ => format!("'{}'", value.replace('\'', "'\\''")),
            }
        };
        self.after = After::Other;
        self.before = 'x';
        Ok(quoted)
    }

    fn top(&self) -> Context {
        self.stack.last().copied().unwrap_or(Context::Bare {
            substitution: false,
            parentheses: 0,
        })
    }

    fn pop(&mut self) {
        if self.stack.len() > 1 {
            self.stack.pop();
        }
    }

    fn replace_top(&mut self, context: Context) {
        if let Some(top) = self.stack.last_mut() {
            *top = context;
        }
    }

    fn step(&mut self, c: char) {
        if self.escaped {
            self.escaped = false;
            return;
        }
        let top = self.top();
        match top {
            Context::Single => {
                if c == '\'' {
                    self.pop();
                }
                return;
            }
            Context::Comment => {
                if c != '\n' {
                    return;
                }
                self.pop();
            }
            _ => {}
        }
        let top = self.top();
        let after = std::mem::replace(&mut self.after, After::Other);
        match (after, c) {
            (After::Dollar, '(') => {
                self.stack.push(Context::Bare {
                    substitution: true,
                    parentheses: 0,
                });
                self.after = After::Parenthesis;
                return;
            }
            (After::Dollar, '{') => {
                self.stack.push(Context::Parameter);
                return;
            }
            (After::Parenthesis, '(') => {
                self.replace_top(Context::Arithmetic { parentheses: 0 });
                return;
            }
            _ => {}
        }
        match c {
            '\\' => self.escaped = true,
            '$' => self.after = After::Dollar,
            '`' => {
                if self.stack.contains(&Context::Backtick) {
                    while self.top() != Context::Backtick {
                        self.pop();
                    }
                    self.pop();
                } else {
                    self.stack.push(Context::Backtick);
                }
            }
            '"' if top == Context::Double => self.pop(),
            '"' => self.stack.push(Context::Double),
            _ => self.step_unquoted(c, top),
        }
    }

    fn step_unquoted(&mut self, c: char, top: Context) {
        match (top, c) {
            (Context::Double, _) => {}
            // Within double quotes an apostrophe in `${…}` is an ordinary character.
            (Context::Parameter, '\'') if self.stack.contains(&Context::Double) => {}
            (_, '\'') => self.stack.push(Context::Single),
            (Context::Parameter, '}') => self.pop(),
            (Context::Arithmetic { parentheses }, '(') => {
                self.replace_top(Context::Arithmetic {
                    parentheses: parentheses + 1,
                });
            }
            (Context::Arithmetic { parentheses: 0 }, ')') if self.before == ')' => self.pop(),
            (Context::Arithmetic { parentheses: 0 }, ')') => {}
            (Context::Arithmetic { parentheses }, ')') => {
                self.replace_top(Context::Arithmetic {
                    parentheses: parentheses - 1,
                });
                // This one closes an inner pair, it is no half of the last two.
                self.before = ' ';
            }
            (
                Context::Bare {
                    substitution,
                    parentheses,
                },
                '(',
            ) => {
                self.replace_top(Context::Bare {
                    substitution,
                    parentheses: parentheses + 1,
                });
            }
            (
                Context::Bare {
                    substitution: true,
                    parentheses: 0,
                },
                ')',
            ) => self.pop(),
            (
                Context::Bare {
                    substitution,
                    parentheses,
                },
                ')',
            ) => {
                self.replace_top(Context::Bare {
                    substitution,
                    parentheses: parentheses.saturating_sub(1),
                });
            }
            (Context::Bare { .. } | Context::Backtick, '#')
                if self.before.is_whitespace() || ";&|()".contains(self.before) =>
            {
                self.stack.push(Context::Comment);
            }
            (Context::Bare { .. } | Context::Backtick, '<') if self.before == '<' => self.here_document = true,
            _ => {}
        }
    }
}

/// Characters that mean nothing to a shell, wherever they stand.
fn is_harmless(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c)
}

fn escape_double(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        if matches!(c, '\\' | '"' | '$' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
