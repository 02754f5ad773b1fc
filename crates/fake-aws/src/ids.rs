//! The account, the region, and generated ids.

/// The account that owns every queue, secret and bucket.
pub const ACCOUNT: &str = "123456789012";

/// The region of every queue, secret and bucket.
pub const REGION: &str = "eu-central-1";

/// Generates an id in the format of the request and message ids of AWS.
pub(crate) fn new_id() -> String {
    let (first, last) = (fastrand::u32(..), fastrand::u64(..1 << 48));
    let (second, third, fourth) = (fastrand::u16(..), fastrand::u16(..0x1000), fastrand::u16(..0x1000));
    format!("{first:08x}-{second:04x}-4{third:03x}-8{fourth:03x}-{last:012x}")
}
