// The curl command that asks what this page asks.

/** `video` has a `name` or a `uri`; `fields` are those of the request; `withKey`: the server needs one. */
export function curlCommand(url, { video, fields, withKey }) {
  const words = ["curl"];
  if (withKey) words.push('-H "Authorization: Bearer $IVCP_KEY"'); // the shell fills it in: never the key itself
  if (video.uri) {
    words.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify({ uri: video.uri, ...fields }))}`);
  } else {
    words.push(`-F ${quoted(`video=@${formValue(video.name)}`)}`);
    for (const [name, value] of Object.entries(fields)) words.push(`-F ${name}=${value}`);
  }
  return [...words, quoted(url)].join(words.length > 2 ? " \\\n  " : " ");
}

/** A file name as curl's -F reads it: what means something to it stands between quotation marks. */
function formValue(name) {
  return /[",;\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name;
}

/** One word for a shell. */
function quoted(word) {
  return /^[\p{L}\p{N}@%+=:,./_-]+$/u.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
