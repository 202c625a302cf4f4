//! Whether a transcript is what it should be.

/// The first line in which two transcripts differ.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is {is}, and should be {should}", is = shown(is), should = shown(should))]
pub struct Differs {
    /// Its number.
    pub line: usize,
    /// What it is; nothing after the end.
    pub is: Option<String>,
    /// What it should be.
    pub should: Option<String>,
}

fn shown(line: &Option<String>) -> String {
    line.as_ref().map_or_else(|| "missing".to_owned(), |line| format!("{line:?}"))
}

/// Compares a transcript with what it should be, line by line.
///
/// # Errors
/// The first line that differs.
pub fn compare(is: &str, should: &str) -> Result<(), Differs> {
    let (mut is, mut should) = (is.lines(), should.lines());
    for line in 1.. {
        match (is.next(), should.next()) {
            (None, None) => break,
            (is, should) if is == should => {}
            (is, should) => {
                let [is, should] = [is, should].map(|line| line.map(str::to_owned));
                return Err(Differs { line, is, should });
            }
        }
    }
    Ok(())
}
