//! Pure. The state of the simulated workspace, now and a little earlier.
//!
//! A [`World`] is four maps behind counted pointers. A write changes a map in place, unless an
//! earlier version of that map is still kept for the replication lag; then the map is copied. Reads
//! copy nothing. The JSON of a user is rendered once, when the user changes.
//!
//! Promises that every email of a user or invite is in lower case wherever it is a key, that a
//! group names only people who are users or invited, and that a version never changes once it is in
//! the past.
//!
//! The world does not check requests. Whether a change is allowed is decided by `writes.rs` and
//! `generic.rs`; only the population observes the bounds by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request::quoted;
use super::rng::Rng;

/// The most things of one kind; creating more is rejected.
pub(super) const MOST_THINGS: usize = 20_000;
/// The most groups, and the most people in one group.
pub(super) const MOST_GROUPS: usize = 2_000;
/// The most earlier versions kept. Beyond that the oldest reads see a newer state.
const MOST_VERSIONS: usize = 500;
/// The roles: id and name.
pub(super) const ROLES: [(&str, &str); 6] = [
    ("workspace-owner", "Workspace Owner"),
    ("workspace-member", "Workspace Member"),
    ("source-admin", "Source Admin"),
    ("source-read-only", "Source Read-only"),
    ("warehouse-admin", "Warehouse Admin"),
    ("function-admin", "Function Admin"),
];

/// One permission: a role on resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The id of the role.
    pub role: String,
    /// The id and the type of each resource.
    pub resources: Vec<(String, String)>,
}

impl Permission {
    /// Returns the members of the API's permission object, without the braces.
    pub(super) fn members(&self) -> String {
        let name = ROLES
            .iter()
            .find(|(id, _)| *id == self.role)
            .map_or("", |(_, name)| name);
        let resources: Vec<String> = self
            .resources
            .iter()
            .map(|(id, kind)| format!(r#"{{"id":{},"type":{}}}"#, quoted(id), quoted(kind)))
            .collect();
        let (role, resources) = (quoted(&self.role), resources.join(","));
        format!(r#""roleId":{role},"roleName":"{name}","resources":[{resources}]"#)
    }
}

/// A user of the workspace.
#[derive(Clone)]
pub(super) struct User {
    /// In lower case.
    pub(super) email: String,
    /// In the order in which they were given.
    pub(super) permissions: Vec<Permission>,
    /// The API's user object.
    pub(super) json: String,
}

/// A group of users. Members and invited people are identified by email in lower case.
#[derive(Clone, Default)]
pub(super) struct Group {
    pub(super) name: String,
    /// The emails of users. Sorted, so that lists are the same in every run.
    pub(super) members: BTreeSet<String>,
    /// The emails of invited people, who become members when they accept.
    pub(super) invites: BTreeSet<String>,
    pub(super) permissions: Vec<Permission>,
}

/// Users by id, and their ids by email in lower case.
#[derive(Clone, Default)]
pub(super) struct Users {
    /// Sorted, so that a page is the same in every run.
    pub(super) by_id: BTreeMap<String, Arc<User>>,
    /// Agrees with `by_id` after every change.
    pub(super) by_email: HashMap<String, String>,
}

/// The state at one moment. Cloning copies four pointers.
#[derive(Clone, Default)]
pub(super) struct World {
    /// Incremented with every request that changes anything.
    pub(super) version: u64,
    pub(super) users: Arc<Users>,
    /// The invited emails, in lower case and as they were written.
    pub(super) invites: Arc<BTreeMap<String, String>>,
    pub(super) groups: Arc<BTreeMap<String, Arc<Group>>>,
    /// Everything else, by path: a JSON object each.
    pub(super) things: Arc<BTreeMap<String, Arc<str>>>,
    /// The number of ids given so far. An id is never given again, even after a deletion.
    created: u64,
}

/// Returns the API's list of permission objects.
pub(super) fn permissions_json(permissions: &[Permission]) -> String {
    let each: Vec<String> = permissions
        .iter()
        .map(|permission| format!("{{{}}}", permission.members()))
        .collect();
    format!("[{}]", each.join(","))
}

impl World {
    /// Creates a workspace with users `user-00001…` (email `user-00001@example.com`) and groups
    /// `group-00001…`. Roles and memberships depend on the seed.
    pub(super) fn populated(seed: u64, users: usize, groups: usize) -> Self {
        let mut rng = Rng::new(seed);
        let mut world = Self::default();
        let users = users.min(MOST_THINGS);
        for number in 1..=users {
            let id = format!("user-{number:05}");
            let role = ROLES[rng.below(ROLES.len())].0.to_owned();
            let resources = vec![("workspace-1".to_owned(), "WORKSPACE".to_owned())];
            let email = format!("{id}@example.com");
            world.put_user(&id, &email, vec![Permission { role, resources }]);
        }
        for number in 1..=groups.min(MOST_GROUPS) {
            let members =
                (0..users.min(3)).map(|_| format!("user-{:05}@example.com", rng.below(users) + 1));
            let group = Group {
                name: format!("Group {number}"),
                members: members.collect(),
                ..Group::default()
            };
            world.put_group(&format!("group-{number:05}"), group);
        }
        // Version 0 is the population; each change adds one.
        world.version = 0;
        world
    }

    /// Adds or replaces a user. A replaced user must keep the email, because the old one would stay
    /// in `by_email`.
    pub(super) fn put_user(&mut self, id: &str, email: &str, permissions: Vec<Permission>) {
        let email = email.to_lowercase();
        let name = email.split('@').next().unwrap_or_default();
        let (quoted_id, name, quoted_email) = (quoted(id), quoted(name), quoted(&email));
        let shown = permissions_json(&permissions);
        let json = format!(
            r#"{{"id":{quoted_id},"name":{name},"email":{quoted_email},"permissions":{shown}}}"#
        );
        let users = Arc::make_mut(&mut self.users);
        users.by_email.insert(email.clone(), id.to_owned());
        users.by_id.insert(
            id.to_owned(),
            Arc::new(User {
                email,
                permissions,
                json,
            }),
        );
    }

    /// Removes a user and the user's memberships.
    pub(super) fn remove_user(&mut self, id: &str) {
        let users = Arc::make_mut(&mut self.users);
        if let Some(user) = users.by_id.remove(id) {
            users.by_email.remove(&user.email);
            self.leave_groups(&user.email);
        }
    }

    /// Removes an invite and its memberships.
    pub(super) fn remove_invite(&mut self, email: &str) {
        Arc::make_mut(&mut self.invites).remove(email);
        self.leave_groups(email);
    }

    /// Adds or replaces a group.
    pub(super) fn put_group(&mut self, id: &str, group: Group) {
        Arc::make_mut(&mut self.groups).insert(id.to_owned(), Arc::new(group));
    }

    /// Returns an id that was not given before, such as `group-new-7`.
    pub(super) fn new_id(&mut self, kind: &str) -> String {
        self.created += 1;
        format!("{kind}-new-{}", self.created)
    }

    /// Adds a user or an invited person to a group.
    ///
    /// The email must be that of a user or an invite. The group is usually a copy, so the world
    /// does not change.
    pub(super) fn join(&self, group: &mut Group, email: &str) {
        let email = email.to_lowercase();
        if self.users.by_email.contains_key(&email) {
            group.members.insert(email);
        } else {
            group.invites.insert(email);
        }
    }

    /// Makes the invited person a user, with the memberships of the invite. Returns the new user's
    /// id.
    pub(super) fn accept_invite(&mut self, email: &str) -> Option<String> {
        let email = email.to_lowercase();
        Arc::make_mut(&mut self.invites).remove(&email)?;
        let id = self.new_id("user");
        self.put_user(&id, &email, Vec::new());
        for group in Arc::make_mut(&mut self.groups).values_mut() {
            if group.invites.contains(&email) {
                let group = Arc::make_mut(group);
                group.invites.remove(&email);
                group.members.insert(email.clone());
            }
        }
        Some(id)
    }

    /// Removes an email from every group. Copies nothing if no group has it.
    fn leave_groups(&mut self, email: &str) {
        let belongs =
            |group: &Arc<Group>| group.members.contains(email) || group.invites.contains(email);
        if !self.groups.values().any(belongs) {
            return;
        }
        for group in Arc::make_mut(&mut self.groups)
            .values_mut()
            .filter(|group| belongs(group))
        {
            let group = Arc::make_mut(group);
            group.members.remove(email);
            group.invites.remove(email);
        }
    }
}

impl Group {
    /// Returns the API's group object. Invited people count as members.
    pub(super) fn json(&self, id: &str) -> String {
        let (id, name, permissions) = (
            quoted(id),
            quoted(&self.name),
            permissions_json(&self.permissions),
        );
        let count = self.members.len() + self.invites.len();
        format!(r#"{{"id":{id},"name":{name},"memberCount":{count},"permissions":{permissions}}}"#)
    }
}

/// The present state and, for as long as the lag, the states before it.
pub(super) struct WorldHistory {
    current: World,
    /// The instant from which the current state has been valid; `None` means from the beginning.
    since: Option<Instant>,
    /// The earlier states, oldest first, each with the instant from which it was valid.
    past: VecDeque<(Option<Instant>, World)>,
    /// How long a change stays invisible to reads. Zero keeps no past at all.
    lag: Duration,
}

impl WorldHistory {
    /// Starts with a state. Reads see it with a delay of `lag`.
    pub(super) fn new(world: World, lag: Duration) -> Self {
        Self {
            current: world,
            since: None,
            past: VecDeque::new(),
            lag,
        }
    }

    /// Returns the present state.
    pub(super) fn current(&self) -> &World {
        &self.current
    }

    /// Returns the state that a read at `now` sees: the one that was valid `lag` ago.
    pub(super) fn seen(&self, now: Instant) -> &World {
        let visible = |since: Option<Instant>| since.is_none_or(|since| since + self.lag <= now);
        if visible(self.since) {
            return &self.current;
        }
        // The newest state that is visible, or the oldest that is left if too many were dropped.
        let found = self
            .past
            .iter()
            .rev()
            .find(|(since, _)| visible(*since))
            .or_else(|| self.past.front());
        found.map_or(&self.current, |(_, world)| world)
    }

    /// Changes the state at `now`, which must not go back. `change` says whether it changed
    /// anything; that counts as one version, however many parts it changed.
    ///
    /// An unchanged state leaves no version behind. A change that fails half-way is kept as far as
    /// it went, if it says so.
    pub(super) fn write<R>(
        &mut self,
        now: Instant,
        change: impl FnOnce(&mut World) -> (bool, R),
    ) -> (bool, R) {
        // Without a lag no second pointer exists, so changes are made in place.
        let kept = (!self.lag.is_zero()).then(|| self.current.clone());
        let (changed, result) = change(&mut self.current);
        if !changed {
            return (changed, result);
        }
        self.current.version += 1;
        if let Some(before) = kept {
            self.past.push_back((self.since, before));
        }
        self.since = Some(now);
        self.prune(now);
        (changed, result)
    }

    /// Drops earlier states that no later read can see, and the oldest ones above the bound.
    fn prune(&mut self, now: Instant) {
        // A state is useless once its successor is visible to every later read.
        let lag = self.lag;
        while self.past.len() > 1 {
            let successor = self.past.get(1).and_then(|(since, _)| *since);
            let useless = successor.is_none_or(|since| since + lag <= now);
            if !useless && self.past.len() <= MOST_VERSIONS {
                break;
            }
            self.past.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invite(world: &mut World, email: &str) {
        Arc::make_mut(&mut world.invites).insert(email.to_owned(), email.to_owned());
    }

    #[test]
    fn the_population_depends_on_the_seed_alone() {
        let text = |seed| {
            let world = World::populated(seed, 20, 5);
            let users: Vec<String> = world
                .users
                .by_id
                .values()
                .map(|user| user.json.clone())
                .collect();
            let groups: Vec<String> = world
                .groups
                .iter()
                .map(|(id, group)| group.json(id))
                .collect();
            (users, groups)
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
        assert_eq!(text(1).0.len(), 20);
        assert!(
            World::populated(1, 0, 2)
                .groups
                .values()
                .all(|group| group.members.is_empty())
        );
    }

    #[test]
    fn whoever_goes_leaves_all_groups() {
        let mut world = World::populated(3, 3, 0);
        invite(&mut world, "new@x.y");
        let mut group = Group::default();
        world.join(&mut group, "User-00001@example.com");
        world.join(&mut group, "new@x.y");
        world.put_group("g", group);
        assert!(world.groups["g"].json("g").contains(r#""memberCount":2"#));
        world.remove_user("user-00001");
        assert!(world.groups["g"].members.is_empty());
        assert!(!world.users.by_email.contains_key("user-00001@example.com"));
        world.remove_invite("new@x.y");
        assert!(world.groups["g"].json("g").contains(r#""memberCount":0"#));
    }

    #[test]
    fn an_accepted_invite_keeps_its_memberships() {
        let mut world = World::populated(3, 0, 0);
        assert_eq!(world.accept_invite("a@b.c"), None);
        invite(&mut world, "a@b.c");
        let mut group = Group::default();
        world.join(&mut group, "a@b.c");
        world.put_group("g", group);
        let id = world.accept_invite("A@b.c").unwrap();
        assert!(world.users.by_id.contains_key(&id) && world.invites.is_empty());
        assert!(
            world.groups["g"].members.contains("a@b.c") && world.groups["g"].invites.is_empty()
        );
    }

    proptest! {
        // A read sees the last write that is at least as old as the lag, whatever was pruned.
        #[test]
        fn reads_lag_behind_exactly(lag in 0_u64..50, steps in prop::collection::vec((0_u64..30, any::<bool>()), 1..80)) {
            let lag = Duration::from_millis(lag);
            let mut history = WorldHistory::new(World::default(), lag);
            let mut now = super::super::some_instant();
            let mut written = Vec::new();
            for (gap, is_write) in steps {
                now += Duration::from_millis(gap);
                if is_write {
                    history.write(now, |_| (true, ()));
                    written.push(now);
                }
                let expected = written.iter().filter(|at| **at + lag <= now).count() as u64;
                prop_assert_eq!(history.seen(now).version, expected);
                prop_assert_eq!(history.current().version, written.len() as u64);
            }
        }

        #[test]
        fn a_kept_state_does_not_change(lag in 1_u64..50) {
            let mut history = WorldHistory::new(World::populated(1, 2, 0), Duration::from_millis(lag));
            let now = super::super::some_instant();
            history.write(now, |world| { world.remove_user("user-00001"); (true, ()) });
            prop_assert_eq!(history.seen(now).users.by_id.len(), 2);
            let later = now + Duration::from_millis(lag);
            prop_assert_eq!(history.seen(later).users.by_id.len(), 1);
        }
    }
}
