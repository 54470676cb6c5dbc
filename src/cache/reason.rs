//! Pure. Why an answer did not come from the store, and why one did not go into it.
//!
//! One name for each reason, used for metrics, logs and `Cache-Status` alike, so that what an
//! operator reads in one place is found in the others.

/// Why a request is not a matter for the cache at all. The order is that of precedence: of several
/// reasons the first is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bypass {
    /// Not a GET.
    Method,
    /// Without `Authorization` nobody knows whose answer it is.
    NoCredential,
    /// The operation's answers are not cached.
    Uncached,
    /// Carries a `Cookie`, which the key does not hold.
    Cookie,
    /// Its `Connection` names a field that the key would hold, and that is not sent.
    Connection,
    /// Asks for a part of an answer that is not known to be stored.
    Range,
    /// Has a condition that is not for caches (`If-Match`), or any where the answer is not known
    /// to be stored.
    Conditional,
    /// Asks for its answer not to be stored (RFC 9111, section 5.2.1.5).
    NoStore,
    /// Its query has no canonical form.
    Query,
    /// What its answer depends on cannot be named, so nobody knows which writes make it stale.
    Names,
    /// The cache is switched off.
    Disabled,
    /// The gateway shows nobody what it has: in shadow mode.
    Shadow,
}

impl Bypass {
    /// Every reason, for the labels of metrics.
    pub const ALL: [Self; 12] = [
        Self::Method,
        Self::NoCredential,
        Self::Uncached,
        Self::Cookie,
        Self::Connection,
        Self::Range,
        Self::Conditional,
        Self::NoStore,
        Self::Query,
        Self::Names,
        Self::Disabled,
        Self::Shadow,
    ];

    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::NoCredential => "no-credential",
            Self::Uncached => "uncached",
            Self::Cookie => "cookie",
            Self::Connection => "connection",
            Self::Range => "range",
            Self::Conditional => "conditional",
            Self::NoStore => "request-no-store",
            Self::Query => "query",
            Self::Names => "names",
            Self::Disabled => "disabled",
            Self::Shadow => "shadow",
        }
    }
}

/// Why a reader's answer did not come from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Miss {
    /// Nothing is stored under the key.
    Absent,
    /// What is stored under the key was chosen by other request fields (`Vary`).
    Variant,
    /// What is stored has outlived its lifetime, or has to be validated before each use.
    Expired,
    /// What is stored began before the last write to what it depends on.
    Fenced,
    /// The request asks for a new answer.
    Reload,
    /// The API may still lag behind a write; the answer is neither stored nor shared.
    Settling,
    /// Too many fetches are under way; the answer is neither stored nor shared.
    TooManyFetches,
    /// Two fetches that the reader joined were overtaken by writes; it fetched alone.
    FencedTwice,
    /// The fetch that the reader joined brought an answer that is not for others.
    NotShared,
    /// The fetch that the reader joined was lost.
    Lost,
    /// The fetch that the reader joined waited for its budget, and the reader does not wait.
    NotWaiting,
    /// The request is not a matter for the cache.
    Bypass(Bypass),
}

impl Miss {
    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Variant => "variant",
            Self::Expired => "expired",
            Self::Fenced => "fenced",
            Self::Reload => "reload",
            Self::Settling => "settling",
            Self::TooManyFetches => "too-many-fetches",
            Self::FencedTwice => "fenced-twice",
            Self::NotShared => "not-shared",
            Self::Lost => "lost",
            Self::NotWaiting => "not-waiting",
            Self::Bypass(bypass) => bypass.as_str(),
        }
    }

    /// Every reason, for the labels of metrics.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Absent,
            Self::Variant,
            Self::Expired,
            Self::Fenced,
            Self::Reload,
            Self::Settling,
            Self::TooManyFetches,
            Self::FencedTwice,
            Self::NotShared,
            Self::Lost,
            Self::NotWaiting,
        ]
        .into_iter()
        .chain(Bypass::ALL.map(Self::Bypass))
    }
}

/// Why an answer was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Its status is not one of those that are stored.
    Status,
    /// It is a part of an answer.
    Partial,
    /// It says `no-store`.
    NoStore,
    /// It says `no-cache`.
    NoCache,
    /// It sets a cookie.
    SetCookie,
    /// It varies by everything, or by more fields than are told apart.
    Vary,
    /// It has a content coding that is not understood here.
    ContentEncoding,
    /// It is too large, as it came or decoded.
    TooLarge,
    /// Other answers take the memory for such that are read as a whole.
    NoRoom,
    /// It was past its lifetime when it came.
    Expired,
    /// Nobody gives it a lifetime: neither the API nor the route.
    NoLifetime,
    /// It says `must-understand`, and its status is not understood here.
    NotUnderstood,
    /// A write to what it depends on ended after its fetch began.
    Fenced,
    /// The API may still lag behind a write to what it depends on.
    Settling,
    /// A newer fetch of the same key took its place.
    Superseded,
    /// Its body is not in the coding that its header names.
    Undecodable,
    /// It has trailers, or another trait that a stored copy would lose.
    Unsuitable,
}

impl Refusal {
    /// Whether the answer says something of what others are to be shown from now on. One that came
    /// amid writes does not, and neither does an error.
    pub const fn is_of_the_answer(self) -> bool {
        !matches!(
            self,
            Self::Status | Self::NoRoom | Self::Fenced | Self::Settling | Self::Superseded
        )
    }

    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Partial => "partial",
            Self::NoStore => "no-store",
            Self::NoCache => "no-cache",
            Self::SetCookie => "set-cookie",
            Self::Vary => "vary",
            Self::ContentEncoding => "content-encoding",
            Self::TooLarge => "too-large",
            Self::NoRoom => "no-room",
            Self::Expired => "expired",
            Self::NoLifetime => "no-lifetime",
            Self::NotUnderstood => "not-understood",
            Self::Fenced => "fenced",
            Self::Settling => "settling",
            Self::Superseded => "superseded",
            Self::Undecodable => "undecodable",
            Self::Unsuitable => "unsuitable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_are_distinct() {
        let labels: HashSet<_> = Miss::all().map(Miss::as_str).collect();
        assert_eq!(labels.len(), Miss::all().count());
    }
}
