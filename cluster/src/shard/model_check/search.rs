//! Every world that can come of a beginning, the nearest first.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use super::world::{Action, Setup, Universe, World};

/// What a search found.
pub(super) struct Report {
    /// Worlds seen.
    pub(super) worlds: usize,
    /// The most actions that any of them is from the beginning.
    pub(super) depth: u32,
    /// Whether these are all there are.
    pub(super) is_exhausted: bool,
    /// The shortest way to one where something does not hold, told action by action.
    pub(super) violation: Option<String>,
}

/// How a world was reached.
#[derive(Clone, Copy)]
struct Step {
    parent: usize,
    action: Action,
    depth: u32,
}

/// Breadth first from the beginning of `setup` until `worlds_max` worlds are seen. `visit` is called with
/// each.
pub(super) fn search(
    setup: Setup,
    worlds_max: usize,
    mut visit: impl FnMut(&mut Universe, &World) -> Result<(), String>,
) -> Report {
    let mut universe = Universe::new(setup);
    let genesis = universe.genesis();
    let mut seen = HashSet::from([fingerprint(&genesis)]);
    let mut steps: Vec<Option<Step>> = vec![None];
    let mut open = VecDeque::from([(0, genesis.clone())]);
    let mut depth = 0;
    while let Some((at, world)) = open.pop_front() {
        depth = steps[at].map_or(0, |step| step.depth);
        let mut found = visit(&mut universe, &world).err().map(|why| (None, why));
        if found.is_none() && steps.len() < worlds_max {
            for action in universe.actions(&world) {
                match universe.apply(&world, action) {
                    Ok(None) => {}
                    Ok(Some(next)) => {
                        if seen.insert(fingerprint(&next)) {
                            steps.push(Some(Step { parent: at, action, depth: depth + 1 }));
                            open.push_back((steps.len() - 1, next));
                        }
                    }
                    Err(why) => {
                        found = Some((Some(action), why));
                        break;
                    }
                }
            }
        }
        if let Some((last, why)) = found {
            let mut way: Vec<Action> = last.into_iter().collect();
            let mut at = at;
            while let Some(step) = steps[at] {
                way.push(step.action);
                at = step.parent;
            }
            way.reverse();
            let violation = Some(tell(&mut universe, genesis, &way, &why));
            return Report { worlds: steps.len(), depth, is_exhausted: false, violation };
        }
    }
    let is_exhausted = steps.len() < worlds_max;
    Report { worlds: steps.len(), depth, is_exhausted, violation: None }
}

/// 64 bits that stand for a world: among ten million worlds two share them once in 400,000 searches.
fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// A way through the worlds, one action a line.
fn tell(universe: &mut Universe, genesis: World, way: &[Action], why: &str) -> String {
    let mut world = genesis;
    let mut lines = format!("{why}\n");
    for (number, &action) in way.iter().enumerate() {
        lines += &format!("{:3}. {}\n", number + 1, universe.describe(&world, action));
        if let Ok(Some(next)) = universe.apply(&world, action) {
            world = next;
        }
    }
    lines + &universe.picture(&world)
}
