/// How large a package may be, in every direction. What goes beyond is refused as soon as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the package file.
    pub packed: u64,
    /// Bytes of all files together, unpacked.
    pub total: u64,
    /// Bytes of one file, unpacked.
    pub file: u64,
    /// Files and folders.
    pub entries: u64,
    /// Bytes of all names together.
    pub names: u64,
    /// Bytes of one path.
    pub path: usize,
    /// Folders above a file, and the file.
    pub depth: usize,
    /// How many times as large as the package file its files may be; see [`Bounds::FREE`].
    pub ratio: u64,
    /// The base-2 logarithm of the zstd window, which is what unpacking takes of memory.
    pub window_log: u32,
}

impl Bounds {
    /// Bytes that a package may unpack to however small it is.
    pub const FREE: u64 = 16 << 20;

    /// What the unpacked files of a package of this size may come to, by `total` and `ratio`.
    pub(crate) fn allowance(&self, packed: u64) -> u64 {
        packed.saturating_mul(self.ratio).max(Self::FREE).min(self.total)
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            packed: 1 << 30,
            total: 4 << 30,
            file: 1 << 30,
            entries: 100_000,
            names: 16 << 20,
            path: 1024,
            depth: 48,
            ratio: 100,
            window_log: 23,
        }
    }
}
