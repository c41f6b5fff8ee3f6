//! The arena and the queue against a list.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use whimbrel_protocol::Ring;

use crate::arena::{Arena, Block};
use crate::storage::{Queue, Storage};

#[derive(Clone, Debug)]
enum Op {
    Put(usize),
    Free(usize),
    Shrink,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..30usize).prop_map(Op::Put),
        // Mostly in order.
        5 => prop_oneof![3 => Just(0), 1 => 0..6usize].prop_map(Op::Free),
        1 => Just(Op::Shrink),
    ]
}

fn check(storage: Storage<'_, u8>, max: usize, ops: &[Op]) {
    let mut arena = Arena::new(storage);
    let mut kept: Vec<(Block, Vec<u8>)> = vec![];
    for (at, op) in ops.iter().enumerate() {
        match *op {
            Op::Put(len) => {
                let live: usize = kept.iter().map(|(_, bytes)| bytes.len() + 4).sum();
                let block = arena.place(len).or_else(|| {
                    arena.make_room(len, kept.iter_mut().map(|(block, _)| block));
                    arena.place(len)
                });
                // There is room exactly when the bytes suffice.
                assert_eq!(block.is_some(), live + len + 4 <= max);
                if let Some(block) = block {
                    arena.get_mut(block).fill(at as u8);
                    kept.push((block, vec![at as u8; len]));
                }
            }
            Op::Free(which) if !kept.is_empty() => {
                arena.free(kept.remove(which % kept.len()).0);
            }
            Op::Free(_) => {}
            Op::Shrink => arena.shrink(),
        }
        for (block, bytes) in &kept {
            assert_eq!(arena.get(*block), bytes);
        }
    }
}

proptest! {
    #[test]
    fn what_is_kept_stays_as_it_is(ops in prop::collection::vec(op(), 0..120), size in 0..90usize) {
        check(Storage::Lent(&mut vec![0; size]), size, &ops);
        check(Storage::growing(size), size, &ops);
    }

    #[test]
    fn a_queue_is_like_any_other(
        ops in prop::collection::vec((0..6u8, any::<u16>()), 0..80),
        size in 0..9usize,
    ) {
        let mut memory = vec![0; size];
        let mut queues =
            [Queue::new(Storage::Lent(&mut memory)), Queue::new(Storage::growing(size))];
        let mut list = VecDeque::new();
        for (op, n) in ops {
            let at = usize::from(n) % (list.len() + 1);
            let room = list.len() < size;
            match op {
                0 | 1 if room => list.push_back(n),
                2 if room => list.insert(at, n),
                3 => drop(list.pop_front()),
                4 => drop(list.remove(at)),
                _ => {}
            }
            for queue in &mut queues {
                match op {
                    0 | 1 => assert_eq!(queue.push_back(n), room),
                    2 => assert_eq!(queue.insert(at, n), room),
                    3 => drop(queue.pop_front()),
                    4 => drop(queue.remove(at)),
                    _ => queue.shrink(),
                }
                assert!(queue.iter_mut().map(|n| *n).eq(list.iter().copied()));
                assert!((0..=size).all(|at| queue.get(at) == list.get(at)));
            }
        }
    }
}
