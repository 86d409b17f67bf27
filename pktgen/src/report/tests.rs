// SPDX-License-Identifier: Apache-2.0
//! Pages of results: what stands in them, and what does not.

use serde_json::{Value, json};

use super::*;

fn run() -> Value {
    let us = json!({ "min": 1.0, "mean": 2.0, "p50": 2.5, "p99": 3.0, "p999": 4.0, "max": 512.5 });
    json!({ "outcome": {
        "frame_sizes": FRAME_SIZES, "seconds": 1.0, "foreign": 3,
        "sender": { "late_us": us, "refused": 0, "starved": 0, "cpu_seconds": 0.5, "kept_up": true },
        "device": { "transmitted": 10, "received": 9, "missed": 0, "too_long": 0 },
        "streams": [{
            "name": "<script>alert(1)</script>", "size": "64", "rate": "10 pps",
            "sent": { "packets": 10, "pps": 10.0, "l2_bps": 5120.0, "l1_bps": 6720.0 },
            "arrived": {
                "received": 9, "pps": 9.0, "lost": 1, "reordered": 0, "duplicated": 0, "too_late": 77,
                "corrupt": 0, "longest_pause": 0.1, "latency_us": us, "latency_cdf": [[1.0, 0.0], [512.5, 100.0]],
            },
        }],
    } })
}

fn benchmarks() -> Value {
    let point = json!({
        "percent": 50.0, "pps": 744_047.0, "l1_bps": 5e8, "loss_percent": 0.125, "sent": 8000, "lost": 10,
        "kept_up": true
    });
    json!({ "report": {
        "frame_sizes": FRAME_SIZES,
        "settings": {
            "sizes": [64], "trial_seconds": 2.0, "resolution_percent": 0.5, "most_percent": 100.0,
            "partial_drop_percent": 0.1, "repeats": 3, "line_bps": 1_000_000_000, "benchmarks": ["loss", "reset"],
            "reset_command": "reboot && echo \"<b>\"",
        },
        "sizes": [{
            "size": 64,
            "no_drop": { "point": point, "found_percent": [49.5, 50.0], "spread_percent": 1.0, "generator_limited": true },
            "latency_cdf": [], "loss": [point], "back_to_back": [900, 1000, 950], "reset_seconds": 12.345,
        }],
    } })
}

fn page_of(results: &[Value]) -> String {
    let parse = |value: &Value| ("a & b.json".to_owned(), Results::parse(&value.to_string()).unwrap());
    of_all("<i>title</i>", &results.iter().map(parse).collect::<Vec<_>>())
}

#[test]
fn words_from_outside_are_never_markup() {
    let page = page_of(&[run(), benchmarks()]);
    for raw in ["<script", "<i>", "<b>", "a & b"] {
        assert!(!page.contains(raw), "{raw}");
    }
    for escaped in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&lt;i&gt;title",
        "a &amp; b.json",
        "reboot &amp;&amp; echo &quot;&lt;b&gt;&quot;",
    ] {
        assert!(page.contains(escaped), "{escaped}");
    }
}

#[test]
fn a_page_needs_nothing_else_and_says_what_sizes_mean() {
    let page = page_of(&[run(), benchmarks()]);
    for outside in ["src=", "href=", "url(", "@import", "<link", "<img"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains(FRAME_SIZES) && page.contains("does not say which machine"));
    assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (4, 4));
}

#[test]
fn tables_have_every_figure() {
    let page = page_of(&[run(), benchmarks()]);
    let run = ["512.5", "77", "100.000", "<td>10 pps</td>"];
    let benchmarks = ["49.50 50.00", "generator", "0.1250", "8000", "900 1000 950", "12.345", "744047"];
    for figure in run.iter().chain(&benchmarks) {
        assert!(page.contains(figure), "{figure}");
    }
}

#[test]
fn what_was_not_measured_has_neither_plot_nor_table() {
    let mut results = benchmarks();
    results["report"]["sizes"][0] = json!({ "size": 64, "latency_cdf": [], "loss": [], "back_to_back": [] });
    let page = page_of(&[results]);
    assert!(!page.contains("<svg") && !page.contains("Reset") && page.contains("Settings"));
}

#[test]
fn what_is_no_result_is_refused_with_what_would_be() {
    for (text, expected) in
        [("", "run --json"), ("[]", "run --json"), ("{}", "rfc2544"), ("{\"outcome\": 3}", "run --json")]
    {
        let error = format!("{:#}", Results::parse(text).unwrap_err());
        assert!(error.contains(expected), "{text}: {error}");
    }
}
