#!/bin/sh
# build.sh OUT: from the root of the repository, what the images hold of Sluice: OUT/opt/sluice and OUT/usr/local/bin/sluice. The
# Dockerfiles run it, and so does test/deploy, in a clean copy of the tree.
set -eu
out=$1
packages="contract wasm-filter xds-server agent cli"

npm ci --no-audit --no-fund
npm run build

# What the lock file says that these packages need when they run, and nothing of what builds or tests them.
root="$out/opt/sluice"
mkdir -p "$root" "$out/usr/local/bin"
cp package.json package-lock.json "$root/"
only=""
for name in $packages test; do
  mkdir -p "$root/$name"
  cp "$name/package.json" "$root/$name/"
done
for name in $packages; do
  only="$only -w $name"
  cp -R "$name/dist" "$root/$name/"
done
mkdir -p "$root/wasm-filter/build"
cp wasm-filter/build/sluice.wasm "$root/wasm-filter/build/"
# shellcheck disable=SC2086 # one word per workspace
(cd "$root" && npm ci --omit=dev --ignore-scripts --no-audit --no-fund $only)
rm -rf "$root/test" "$root/node_modules/@sluice/test" "$root/package-lock.json" "$root/node_modules/.package-lock.json"
find "$root" \( -name '*.d.ts' -o -name '*.d.cts' -o -name '*.d.mts' -o -name '*.map' -o -name '*.md' \) -type f -delete

# An absolute interpreter: the controller's image has neither a shell nor `env`.
cat > "$out/usr/local/bin/sluice" <<'EOF'
#!/usr/local/bin/node
import('/opt/sluice/cli/dist/main.js');
EOF
chmod 0755 "$out/usr/local/bin/sluice"
