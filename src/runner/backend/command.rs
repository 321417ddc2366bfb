//! The `command` backend: any program, the prompt on its standard input, its standard output the answer.

use super::{RESULT_TEXT_BYTES, end_of};
use crate::model::{Certificate, Exit, SessionReport};

/// Such a program reports nothing but its exit: 0 is success, any other status an error.
pub(super) fn report(certificate: &Certificate, stdout: &str) -> SessionReport {
    let code = match certificate.exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(_) | Exit::Unknown => None,
    };
    SessionReport {
        has_result: code.is_some(),
        is_error: code.is_some_and(|code| code != 0),
        result_text: end_of(stdout, RESULT_TEXT_BYTES).to_owned(),
        // A new session is all that such a program can be given, so no work of it can be taken up.
        worked: false,
        ..SessionReport::default()
    }
}
