//! What a worker counts of the commands it carried out, under memcached's names.

use crate::net::counters::counters;

counters! { CommandCounters, CommandTotals:
    /// Keys asked for by get and its kin.
    cmd_get,
    /// Values sent to be stored.
    cmd_set,
    /// `flush_all`.
    cmd_flush,
    /// Keys asked to be given another expiry.
    cmd_touch,
    /// Meta commands, all of them.
    cmd_meta,
    /// Keys asked for that were there.
    get_hits,
    /// Keys asked for that were not.
    get_misses,
    /// Deletes that met nothing.
    delete_misses,
    /// Deletes that removed an item.
    delete_hits,
    /// Increments that met nothing.
    incr_misses,
    /// Increments that changed a number.
    incr_hits,
    /// Decrements that met nothing.
    decr_misses,
    /// Decrements that changed a number.
    decr_hits,
    /// Compare-and-sets that met nothing.
    cas_misses,
    /// Compare-and-sets that stored.
    cas_hits,
    /// Compare-and-sets that met another cas.
    cas_badval,
    /// Touches of an item.
    touch_hits,
    /// Touches that met nothing.
    touch_misses,
    /// Values refused because they were too large.
    store_too_large,
    /// Values refused because no room could be made.
    store_no_memory,
    /// Times that a client said who it is.
    auth_cmds,
    /// Times that it was not believed.
    auth_errors,
}
