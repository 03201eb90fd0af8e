//! The page of `bench --html`, as a browser shows it.

use std::fs;
use std::process::Command;

use trapgate_tests::backend::trapgate;
use trapgate_tests::browser::{rendered, self_contained};
use trapgate_tests::guest::target_dir;

/// Put at the end of a copy of the page: tells what was laid out, for the DOM alone has no widths.
const MEASURE: &str = r"
<script>
const lines = [...document.querySelectorAll('table.item')].map(table => {
  const bars = [...table.querySelectorAll('.bar')].map(bar => bar.getBoundingClientRect());
  const rows = table.querySelectorAll('tbody tr').length;
  return table.id + ' ' + rows + ' ' + bars.filter(b => b.width >= 2 && b.height >= 5).length;
});
const root = document.documentElement;
lines.push(root.scrollWidth <= root.clientWidth ? 'fits' : 'overflows');
const pre = document.createElement('pre');
pre.id = 'measured';
pre.textContent = lines.join('\n');
document.querySelector('main').append(pre);
</script>
";

#[test]
fn chromium_shows_items_and_bars() {
    let dir = target_dir().join("tmp").join(format!("bench-html-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (page, json) = (dir.join("bench.html"), dir.join("bench.json"));
    let bench = Command::new(trapgate())
        .args(["bench", "--filter", "getppid,hello,memory", "--rounds", "2"])
        .arg("--html")
        .arg(&page)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));

    let html = self_contained(&page);
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let ways = report["configurations"].as_array().unwrap().len();

    let measuring = dir.join("measuring.html");
    fs::write(&measuring, html.replace("</main>", &format!("</main>{MEASURE}"))).unwrap();
    for width in [1200, 600] {
        let dom = rendered(&measuring, &dir.join("profile"), width);
        let measured = dom
            .split_once("<pre id=\"measured\">")
            .and_then(|(_, rest)| rest.split_once("</pre>"))
            .map(|(measured, _)| measured.to_owned())
            .unwrap_or_else(|| panic!("nothing was laid out:\n{dom}"));
        let wanted: Vec<String> = ["getppid", "hello-static", "hello-dynamic", "idle-memory"]
            .iter()
            .map(|item| format!("i-{item} {ways} {ways}"))
            .chain(["fits".to_owned()])
            .collect();
        assert_eq!(measured.lines().collect::<Vec<_>>(), wanted, "at {width} pixels");
        for words in ["At a glance", "The machine", "How to read it", "getppid(2) by SYSCALL"] {
            assert!(dom.contains(words), "no '{words}' at {width} pixels");
        }
    }
    fs::remove_dir_all(dir).unwrap();
}
