//! What the pages of `bench` and `fuzz` have in common: each is one file that needs nothing beside it.

use std::fmt::{self, Display, Formatter, Write as _};

/// Their style sheet.
pub const STYLE: &str = include_str!("page.css");

/// Text that is shown as it is, in an element or in a quoted attribute.
pub struct Text<T>(pub T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for character in self.0.to_string().chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn text_cannot_end_an_element_or_an_attribute() {
        assert_eq!(Text("<a href=\"'&").to_string(), "&lt;a href=&quot;&#39;&amp;");
    }
}
