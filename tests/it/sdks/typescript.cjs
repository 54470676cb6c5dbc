// Reads a page of users and writes with Segment's TypeScript SDK, with whatever is in SEGMENT_TOKEN:
//
//   node typescript.cjs BASE_URL FOLDER_WITH_NODE_MODULES
//
// Prints one JSON object: the number of users, and the type of the error of a write without a right.
const { createRequire } = require('node:module');
const [base, folder] = process.argv.slice(2);
const { configureApis, unwrap } = createRequire(`${folder}/`)('@segment/public-api-sdk-typescript');

const apis = configureApis(process.env.SEGMENT_TOKEN);
for (const api of Object.values(apis)) api.basePath = base;

async function main() {
  const { users } = await unwrap(apis.iamUsers.listUsers({ count: 2 }));
  const denied = await unwrap(apis.iamUsers.createInvites({ invites: [{ email: 'a@example.com' }] })).then(
    () => 'none',
    (error) => error.type,
  );
  console.log(JSON.stringify({ users: users.length, denied }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
