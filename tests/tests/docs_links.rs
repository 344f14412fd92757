//! Links of all Markdown files lead somewhere, and the book has every page.

use std::fs;
use std::path::Path;

use weir_tests::documents::{anchors, links, pages, repository};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn relative_links_and_anchors_lead_somewhere() {
    let (mut broken, mut seen) = (Vec::new(), 0);
    for page in pages() {
        let text = read(&page);
        for (line, target) in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() {
                page.clone()
            } else {
                page.with_file_name(file)
            };
            let has_anchor = || anchors(&read(&path)).iter().any(|other| other == anchor);
            if !path.exists() || !anchor.is_empty() && !has_anchor() {
                broken.push(format!("{}:{line}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 100, "{seen} links");
}

#[test]
fn the_book_has_every_page() {
    let docs = repository().join("docs");
    let summary = read(&docs.join("SUMMARY.md"));
    let listed: Vec<String> = links(&summary).into_iter().map(|(_, target)| target).collect();
    for page in pages() {
        let Ok(name) = page.strip_prefix(&docs) else { continue };
        let name = name.display().to_string();

        assert!(
            name == "SUMMARY.md" || listed.contains(&name),
            "{name} is not in docs/SUMMARY.md"
        );
    }
    for (number, name) in listed.iter().enumerate() {
        assert!(!listed[..number].contains(name), "{name} is in docs/SUMMARY.md twice");
    }
}

#[test]
fn headings_become_anchors_as_code_hosts_make_them() {
    let page =
        "# What a box needs\n```sh\n# not one\n```\n## rollback, history\n## `weir top`\n## show\n## show\n#!no\n";
    let wanted = ["what-a-box-needs", "rollback-history", "weir-top", "show", "show-1"];
    assert_eq!(anchors(page), wanted);
    let page = "a [b](c.md#d) and `[e](f)`\n```\n[g](h)\n```\n    [i](j)\n![k](l.png \"m\")\n";
    assert_eq!(links(page), [(1, "c.md#d".to_owned()), (6, "l.png".to_owned())]);
}
