//! Process metrics under Prometheus' usual names, read from `/proc` when somebody scrapes.

use std::fs;

use super::Scrape;

/// Adds what can be read; on other systems than Linux that is nothing.
pub(super) fn collect(scrape: &mut Scrape) {
    let page_bytes = rustix::param::page_size() as f64;
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    if let Some(stat) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(fields)
    {
        let cpu = (stat(14) + stat(15)) / ticks_per_second;
        scrape.counter("process_cpu_seconds_total", &[], cpu);
        scrape.gauge("process_threads", &[], stat(20));
        scrape.gauge("process_virtual_memory_bytes", &[], stat(23));
        scrape.gauge("process_resident_memory_bytes", &[], stat(24) * page_bytes);
        if let Some(boot) = boot_time() {
            let start = boot + stat(22) / ticks_per_second;
            scrape.gauge("process_start_time_seconds", &[], start);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        scrape.gauge("process_open_fds", &[], open.count() as f64);
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        scrape.gauge("process_max_fds", &[], limit as f64);
    }
}

/// The numbers of a `stat` line by their position in proc(5), which counts from 1 and has the command second.
fn fields(stat: &str) -> Option<impl Fn(usize) -> f64 + use<>> {
    // The command is in parentheses and may hold blanks and parentheses itself.
    let (_, rest) = stat.rsplit_once(") ")?;
    let numbers: Vec<f64> = rest
        .split(' ')
        .map(|n| n.trim().parse().unwrap_or(0.0))
        .collect();
    Some(move |position: usize| numbers.get(position - 3).copied().unwrap_or(0.0))
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find(|line| line.starts_with("btime "))?;
    line[6..].trim().parse().ok()
}
