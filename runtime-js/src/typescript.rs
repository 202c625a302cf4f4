use std::cell::RefCell;
use std::rc::Rc;

use swc_common::errors::{DiagnosticBuilder, Emitter, HANDLER, Handler};
use swc_common::sync::Lrc;
use swc_common::{GLOBALS, Globals, SourceMap};
use swc_ts_fast_strip::{Mode, Options, operate};

/// Takes the types out of TypeScript and leaves everything else at its line and column.
///
/// # Errors
/// Says what does not parse or cannot be taken out, such as an `enum`, and where.
pub(crate) fn strip(file: &str, source: String) -> Result<String, String> {
    let map: Lrc<SourceMap> = Lrc::default();
    let said = Rc::default();
    let listener = Listener { map: Lrc::clone(&map), file: file.to_owned(), said: Rc::clone(&said) };
    let handler = Handler::with_emitter(true, false, Box::new(listener));
    let options = Options { module: Some(true), mode: Mode::StripOnly, ..Options::default() };
    let stripped = GLOBALS
        .set(&Globals::default(), || HANDLER.set(&handler, || operate(&map, &handler, source, options)));
    stripped.map(|output| output.code).map_err(|error| {
        let said = said.borrow();
        if said.is_empty() { format!("{file}: {}", error.message) } else { said.join("; ") }
    })
}

/// Collects what the parser says, with the place of each.
struct Listener {
    map: Lrc<SourceMap>,
    file: String,
    said: Rc<RefCell<Vec<String>>>,
}

impl Emitter for Listener {
    fn emit(&mut self, diagnostic: &mut DiagnosticBuilder<'_>) {
        let message = diagnostic.message();
        let file = &self.file;
        self.said.borrow_mut().push(match diagnostic.span.primary_span() {
            Some(span) => {
                let place = self.map.lookup_char_pos(span.lo());
                format!("{file}:{}:{}: {message}", place.line, place.col_display + 1)
            }
            None => format!("{file}: {message}"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::strip;

    #[test]
    fn types_go_and_places_stay() {
        let stripped = strip("a.ts", "export const f = (a: number): string => `${a}`;\n".to_owned()).unwrap();
        assert_eq!(stripped, "export const f = (a        )         => `${a}`;\n");
    }

    #[test]
    fn errors_name_the_place() {
        for (source, words) in [("let a = ;\n", "a.ts:1:9: "), ("\n  enum A { B }\n", "a.ts:2:3: ")] {
            let error = strip("a.ts", source.to_owned()).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
    }
}
