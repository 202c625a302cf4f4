//! The test guest for streams that every language has: it makes them, reads them and passes them on.

#[quadriga_sdk::extension]
mod flow {
    use quadriga_sdk::{Error, Input, Stream, Value, host};

    /// The numbers below `n`.
    pub fn count(n: u64) -> Stream<u64> {
        Stream::new(0..n)
    }

    /// So many blocks of so many bytes.
    pub fn blocks(n: u64, size: usize) -> Stream<Value> {
        Stream::new((0..n).map(move |_| Value::Bytes(vec![7; size])))
    }

    /// The numbers below `n`, then an error.
    pub fn broken(n: u64) -> Stream<u64> {
        Stream::of_results(
            (0..=n).map(move |i| if i < n { Ok(i) } else { Err(Error::new("the source ran dry")) }),
        )
    }

    /// Adds up what it is sent.
    pub fn sum(numbers: Input<u64>) -> Result<u64, Error> {
        numbers.sum()
    }

    /// Adds up the first items that it is sent, and hears no more.
    pub fn sum_first(numbers: Input<u64>, n: usize) -> Result<u64, Error> {
        numbers.take(n).sum()
    }

    /// Twice each number that it is sent.
    pub fn double(numbers: Input<u64>) -> Stream<u64> {
        Stream::of_results(numbers.map(|n| n.map(|n| 2 * n)))
    }

    /// Reads `count` of another extension, and adds up.
    pub fn total(extension: &str, n: u64) -> Result<u64, Error> {
        host::stream::<u64>(extension, "count", (n,))?.sum()
    }

    /// Reads the first items of an endless stream of another extension.
    pub fn first(extension: &str, n: usize) -> Result<Vec<u64>, Error> {
        host::stream(extension, "count", (u64::MAX,))?.take(n).collect()
    }

    /// Sends `sum` of another extension the numbers below `n`.
    pub fn send(extension: &str, n: u64) -> Result<u64, Error> {
        host::feed(extension, "sum", (host::INPUT,), 0..n)
    }

    /// Sends `sum_first` of another extension numbers without end.
    pub fn send_endless(extension: &str, n: usize) -> Result<u64, Error> {
        host::feed(extension, "sum_first", (host::INPUT, n), 0..)
    }

    /// Reads `broken` of another extension, to its end.
    pub fn read_broken(extension: &str, n: u64) -> Result<u64, Error> {
        host::stream::<u64>(extension, "broken", (n,))?.sum()
    }

    /// Waits until its caller no longer does.
    pub fn pause() {
        while !host::cancelled() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        host::log::info("cleaned up");
    }

    /// All at once.
    pub fn whole(extension: &str, n: u64) -> Result<Vec<u64>, Error> {
        host::call(extension, "count", (n,))
    }
}
