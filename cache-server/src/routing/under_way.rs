//! What is under way to other nodes, by the number under which each comes back.
//!
//! ```text
//! number:  | round 32 bits | place 32 bits |      a place is used again once it is free, in its next round
//! places:  | 0: round 7, here | 1: round 3, free | 2: round 9, here | ...
//! ```
//!
//! Each request that is passed on is looked up once, when its answer comes, and a number that was given out says
//! where: there is nothing to hash and nothing to search. A number of an earlier round, or one that was never
//! given out, finds nothing: another node says it, and may say anything.

/// Things under way.
#[derive(Debug)]
pub(super) struct UnderWay<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    round: u32,
    thing: Option<T>,
}

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

fn number(round: u32, index: u32) -> u64 {
    u64::from(round) << 32 | u64::from(index)
}

impl<T> UnderWay<T> {
    /// `thing` is on its way; it is known by what is returned.
    pub(super) fn insert(&mut self, thing: T) -> u64 {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.thing = Some(thing);
            return number(place.round, index);
        }
        let index = u32::try_from(self.places.len()).expect("what is under way fits the memory");
        self.places.push(Place { round: 0, thing: Some(thing) });
        number(0, index)
    }

    fn place(&mut self, number: u64) -> Option<&mut Place<T>> {
        let index = usize::try_from(number & u64::from(u32::MAX)).ok()?;
        self.places.get_mut(index).filter(|place| u64::from(place.round) == number >> 32)
    }

    /// What is known by `number`, if it is still under way.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.place(number)?.thing.as_mut()
    }

    /// The same, and it is no more.
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let place = self.place(number)?;
        let thing = place.thing.take()?;
        place.round = place.round.wrapping_add(1);
        self.free.push(u32::try_from(number & u64::from(u32::MAX)).ok()?);
        Some(thing)
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// All of it, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (0..).zip(&self.places).filter_map(|(index, place)| {
            let thing = place.thing.as_ref()?;
            Some((number(place.round, index), thing))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_says_nothing_once_what_it_named_is_gone() {
        let mut under_way = UnderWay::default();
        let first = under_way.insert('a');
        assert_eq!((under_way.remove(first), under_way.remove(first)), (Some('a'), None));
        let second = under_way.insert('b');
        assert_ne!(first, second, "the same place, in another round");
        assert_eq!(under_way.get_mut(first), None);
        assert_eq!(under_way.get_mut(second), Some(&mut 'b'));
        assert_eq!(under_way.remove(u64::MAX), None, "never given out");
    }

    proptest! {
        #[test]
        fn is_a_map_from_numbers_to_what_is_under_way(steps in vec(any::<(bool, u8)>(), 0..200)) {
            let (mut under_way, mut model) = (UnderWay::default(), BTreeMap::new());
            for (inserts, pick) in steps {
                if inserts || model.is_empty() {
                    prop_assert_eq!(model.insert(under_way.insert(pick), pick), None);
                } else {
                    let number = *model.keys().nth(usize::from(pick) % model.len()).unwrap();
                    prop_assert_eq!(under_way.remove(number), model.remove(&number));
                }
                let all: BTreeMap<u64, u8> = under_way.iter().map(|(it, &thing)| (it, thing)).collect();
                prop_assert_eq!(&all, &model);
                prop_assert_eq!(under_way.is_empty(), model.is_empty());
            }
        }
    }
}
