//! Decodes and encodes the classic requests.

use crate::key::Key;
use crate::token::Tokens;

/// The keys of a get, each of them valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys<'a> {
    tokens: Tokens<'a>,
    count: usize,
}

impl<'a> Iterator for Keys<'a> {
    type Item = Key<'a>;

    #[inline]
    fn next(&mut self) -> Option<Key<'a>> {
        let key = Key::new(self.tokens.next()?);
        self.count -= 1;
        key
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Keys<'_> {}
