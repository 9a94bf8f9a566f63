//! crit and `isamorph decode` show the same of every image, and encoding gives the image again.
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isamorph::image::json;
use serde_json::Value;

/// Checks all images below a directory.
///
/// # Errors
/// What is different where; there are no images; crit is missing.
pub fn agrees(trees: &Path) -> Result<usize, String> {
    let mut images = Vec::new();
    collect(trees, &mut images).map_err(|e| e.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/crit.py");
    let mut python = Command::new("/usr/bin/python3");
    let mut python = python.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let python = python.as_mut().map_err(|e| format!("python3: {e}"))?;
    let mut stdin = python.stdin.take().ok_or("no pipe")?;
    let list = images.iter().map(|p| format!("{}\n", p.display())).collect::<String>();
    let writer = std::thread::spawn(move || stdin.write_all(list.as_bytes()));
    let output = std::io::read_to_string(python.stdout.take().ok_or("no pipe")?).map_err(|e| e.to_string())?;
    writer.join().map_err(|_| "writer")?.map_err(|e| format!("crit.py: {e}: apt-get install criu"))?;
    python.wait().map_err(|e| e.to_string())?;
    let mut complaints = Vec::new();
    let mut seen = 0;
    for line in output.lines() {
        let theirs: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let path = theirs["path"].as_str().unwrap_or_default();
        match (&theirs["error"], ours(Path::new(path))) {
            (Value::String(error), _) => complaints.push(format!("{path}: crit: {error}")),
            (_, Err(error)) => complaints.push(format!("{path}: decode: {error}")),
            (_, Ok(ours)) if ours != theirs["image"] => complaints.push(format!("{path}: decode and crit differ")),
            (_, Ok(_)) => seen += 1,
        }
    }
    if seen + complaints.len() != images.len() || images.is_empty() {
        complaints.push(format!("crit showed {seen} of {} images", images.len()));
    }
    if complaints.is_empty() { Ok(seen) } else { Err(complaints.join("\n")) }
}

fn ours(path: &Path) -> Result<Value, String> {
    let bytes = json::read(Some(path)).map_err(|e| e.to_string())?;
    let decoded = json::decode(path, &bytes, json::Options::default()).map_err(|e| e.to_string())?;
    if !decoded.unknown.is_empty() || decoded.no_schema {
        return Err(format!("not all is known: {:?}", decoded.unknown));
    }
    if !decoded.is_exact(&bytes) {
        return Err("encoding it gives other bytes".into());
    }
    let mut json = serde_json::to_value(&decoded.json).map_err(|e| e.to_string())?;
    if json["magic"] == "PAGEMAP" {
        for entry in json["entries"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            // Its name in CRIU 3.17.1, when it was the only one.
            if let Some(pages) = entry.remove("compat_nr_pages") {
                entry.insert("nr_pages".into(), pages);
            }
        }
    }
    Ok(json)
}

fn collect(dir: &Path, images: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), images)?;
        } else if name.ends_with(".img") && !name.starts_with("pages-") || name.starts_with("stats-") {
            images.push(entry.path());
        }
    }
    Ok(())
}
