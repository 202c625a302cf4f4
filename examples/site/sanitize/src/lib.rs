//! Makes rendered Markdown safe to show: scripts, styles, forms and event handlers go; text,
//! tables, images, highlighted code and links to headings stay.

use std::sync::LazyLock;

use ammonia::Builder;

const HEADINGS: [&str; 6] = ["h1", "h2", "h3", "h4", "h5", "h6"];
const CODE: [&str; 3] = ["code", "pre", "span"];

static SANITISER: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut builder = Builder::default();
    for tag in HEADINGS {
        builder.add_tag_attributes(tag, ["id"]);
    }
    for tag in CODE {
        builder.add_tag_attributes(tag, ["class"]);
    }
    builder
});

#[quadriga_sdk::extension]
mod sanitizer {
    /// The HTML without what could harm a reader.
    pub fn sanitize(html: &str) -> String {
        super::SANITISER.clean(html).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::SANITISER;

    fn check(html: &str, expected: &str) {
        assert_eq!(SANITISER.clean(html).to_string(), expected);
    }

    #[test]
    fn what_markdown_makes_stays() {
        for html in [
            r#"<h2 id="the-end">The <em>end</em></h2>"#,
            r#"<pre class="highlight"><code class="language-rust"><span class="k">fn</span></code></pre>"#,
            r#"<table><thead><tr><th align="right">n</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"#,
            r#"<p><img src="images/horse.png" alt="A horse" title="Four"></p>"#,
            "<blockquote><p>So <del>he</del> said</p></blockquote>",
        ] {
            check(html, html);
        }
        let link = r#"<a href="../guide.html#top" rel="noopener noreferrer">Guide</a>"#;
        check(r#"<a href="../guide.html#top">Guide</a>"#, link);
    }

    #[test]
    fn what_could_harm_goes() {
        check("a<script>alert(1)</script>b", "ab");
        check(r#"<p onclick="alert(1)" style="color:red" class="x" id="y">a</p>"#, "<p>a</p>");
        check(r#"<a href="javascript:alert(1)">a</a>"#, r#"<a rel="noopener noreferrer">a</a>"#);
        check(r#"<img src="data:text/html,x">"#, "<img>");
        check(r#"<ul><li><input type="checkbox" checked> done</li></ul>"#, "<ul><li> done</li></ul>");
        check(r#"<iframe src="https://example.org"></iframe><form><button>a</button></form>"#, "a");
    }
}
