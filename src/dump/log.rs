//! The log of a command: levels as CRIU's `-v`, to a file or to standard error.
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// Where messages go. Level 1: errors, 2: warnings, 3: what happens, 4: details.
#[derive(Debug)]
pub struct Log {
    level: u8,
    file: Option<Mutex<File>>,
    started: Instant,
}

impl Log {
    /// A log of this level, to a new file or to standard error.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn new(level: u8, path: Option<&Path>) -> std::io::Result<Self> {
        let file = path.map(File::create).transpose()?.map(Mutex::new);
        Ok(Self { level, file, started: Instant::now() })
    }

    fn write(&self, level: u8, word: &str, text: &str) {
        if level > self.level {
            return;
        }
        let line = format!("({:010.6}) {word}{text}\n", self.started.elapsed().as_secs_f64());
        // A log that cannot be written is no reason to fail.
        let _ = match &self.file {
            Some(file) => file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }

    /// Why the command fails. Without a file, the command itself says so on standard error.
    pub fn error(&self, text: &str) {
        if self.file.is_some() {
            self.write(1, "Error: ", text);
        }
    }

    /// Something that a user may want to know of.
    pub fn warn(&self, text: &str) {
        self.write(2, "Warn: ", text);
    }

    /// What happens.
    pub fn info(&self, text: &str) {
        self.write(3, "", text);
    }

    /// Details.
    pub fn debug(&self, text: &str) {
        self.write(4, "", text);
    }
}
