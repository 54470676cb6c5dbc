// Checks documents from the standard input against published types, and prints them as one JSON list:
//
//   node check.mjs kubernetes < manifests.yaml
//   node check.mjs grafana < dashboard.json
//
// Fields that the types do not know are problems as well. Problems go to the standard error.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv } from 'ajv';
import { createGenerator } from 'ts-json-schema-generator';
import { parseAllDocuments } from 'yaml';

const here = dirname(fileURLToPath(import.meta.url));
const problems = [];

const generator = createGenerator({
  path: join(here, 'types.ts'),
  tsconfig: join(here, 'tsconfig.json'),
  skipTypeCheck: true,
  expose: 'none',
});
const validators = new Map();

/** The validator for a type in types.ts; undefined if there is none of this name. */
function validator(type) {
  if (!validators.has(type)) {
    const known = readFileSync(join(here, 'types.ts'), 'utf8').match(/(?<=^export (type|interface) )\w+/gm);
    const ajv = new Ajv({ strict: false, allErrors: true });
    validators.set(type, known.includes(type) ? ajv.compile(generator.createSchema(type)) : undefined);
  }
  return validators.get(type);
}

function check(type, document, name) {
  const validate = validator(type);
  if (validate === undefined) {
    problems.push(`${name}: ${type} is not a type in types.ts`);
  } else if (!validate(document)) {
    for (const { instancePath, message, params } of validate.errors) {
      problems.push(`${name}: ${instancePath} ${message} ${JSON.stringify(params)}`);
    }
  }
}

const documents = parseAllDocuments(readFileSync(0, 'utf8')).map((document) => {
  problems.push(...document.errors.map(String));
  return document.toJS();
});
for (const document of documents) {
  switch (process.argv[2]) {
    case 'kubernetes':
      check(document.kind, document, `${document.kind} ${document.metadata?.name}`);
      break;
    case 'grafana':
      check('Dashboard', document, 'dashboard');
      for (const panel of document.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])])) {
        check(panel.type, panel, panel.title);
      }
      break;
    default:
      problems.push('usage: node check.mjs kubernetes|grafana');
  }
}
if (problems.length > 0) {
  console.error(problems.join('\n'));
  process.exit(1);
}
console.log(JSON.stringify(documents));
