//! The journal, and all that is built on it, over a disk that loses what was not synced: what is acknowledged comes into
//! the lake, and once.

mod alone;
mod corpus;
mod crash;
mod damage;
mod model;
mod replay;
mod staging;
mod trouble;
mod way;
mod world;
