# The queue. Accepted requests must outlive it: an instance keeps Valkey's append-only file on a disk
# that outlives the instance; ElastiCache keeps a replica in a second zone instead.

locals {
  valkey_host = local.managed ? one(aws_elasticache_replication_group.valkey[*].primary_endpoint_address) : "valkey.${var.name}.internal"
  valkey_type = coalesce(var.valkey_type, local.managed ? "cache.t4g.medium" : "t4g.medium")
}

resource "aws_security_group" "valkey" {
  name        = "${var.name}-valkey"
  description = "Valkey"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-valkey" }
}

resource "aws_vpc_security_group_ingress_rule" "valkey" {
  security_group_id            = aws_security_group.valkey.id
  description                  = "From clients alone"
  referenced_security_group_id = aws_security_group.clients.id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_vpc_security_group_egress_rule" "to_valkey" {
  security_group_id            = aws_security_group.clients.id
  description                  = "Valkey"
  referenced_security_group_id = aws_security_group.valkey.id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

# An instance.

data "aws_ssm_parameter" "ami" {
  count = local.managed || var.ami_id != null ? 0 : 1
  name  = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
}

data "aws_subnet" "valkey" {
  id = var.subnet_ids[0]
}

resource "aws_vpc_security_group_egress_rule" "valkey" {
  count             = local.managed ? 0 : 1
  security_group_id = aws_security_group.valkey.id
  description       = "Packages, the image, SSM"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_iam_role" "valkey" {
  count = local.managed ? 0 : 1
  name  = "${var.name}-valkey"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "valkey" {
  count = local.managed ? 0 : 1
  name  = "read-its-users-and-be-looked-at"
  role  = aws_iam_role.valkey[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = "ssm:GetParameter", Resource = aws_ssm_parameter.this["valkey-users"].arn },
      { Effect = "Allow", Action = "kms:Decrypt", Resource = aws_kms_key.this.arn },
      # Session Manager, the only way in.
      { Effect = "Allow", Resource = "*", Action = [
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
      ] },
    ]
  })
}

resource "aws_iam_instance_profile" "valkey" {
  count = local.managed ? 0 : 1
  name  = "${var.name}-valkey"
  role  = aws_iam_role.valkey[0].name
}

resource "aws_ebs_volume" "valkey" {
  count             = local.managed ? 0 : 1
  availability_zone = data.aws_subnet.valkey.availability_zone
  size              = 20
  type              = "gp3"
  encrypted         = true
  kms_key_id        = aws_kms_key.this.arn
  final_snapshot    = var.protect
  tags              = { Name = "${var.name}-valkey" }
}

resource "aws_instance" "valkey" {
  count                       = local.managed ? 0 : 1
  ami                         = coalesce(var.ami_id, one(data.aws_ssm_parameter.ami[*].value))
  instance_type               = local.valkey_type
  subnet_id                   = var.subnet_ids[0]
  vpc_security_group_ids      = [aws_security_group.valkey.id]
  iam_instance_profile        = aws_iam_instance_profile.valkey[0].name
  associate_public_ip_address = false
  ebs_optimized               = true
  monitoring                  = true
  user_data_replace_on_change = true
  user_data = templatefile("${path.module}/valkey.sh.tftpl", {
    config    = file("${path.module}/../../../../loraplex/embedded/valkey.conf")
    image     = var.valkey_image
    parameter = aws_ssm_parameter.this["valkey-users"].name
    region    = data.aws_region.here.name
    secrets   = var.secrets_version
    volume    = replace(aws_ebs_volume.valkey[0].id, "-", "")
  })

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_size = 20
    volume_type = "gp3"
    encrypted   = true
    kms_key_id  = aws_kms_key.this.arn
  }

  lifecycle {
    ignore_changes = [ami] # a newer image alone is no reason to restart the queue
  }
  tags = { Name = "${var.name}-valkey" }
}

resource "aws_volume_attachment" "valkey" {
  count       = local.managed ? 0 : 1
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.valkey[0].id
  instance_id = aws_instance.valkey[0].id

  stop_instance_before_detaching = true # Valkey ends, and its file is whole
}

resource "aws_route53_zone" "internal" {
  count = local.managed ? 0 : 1
  name  = "${var.name}.internal"
  vpc {
    vpc_id = var.vpc_id
  }
}

resource "aws_route53_record" "valkey" {
  count   = local.managed ? 0 : 1
  zone_id = aws_route53_zone.internal[0].zone_id
  name    = "valkey"
  type    = "A"
  ttl     = 30
  records = [aws_instance.valkey[0].private_ip]
}

# Managed.

resource "aws_elasticache_subnet_group" "valkey" {
  count      = local.managed ? 1 : 0
  name       = "${var.name}-valkey"
  subnet_ids = var.subnet_ids
}

resource "aws_elasticache_parameter_group" "valkey" {
  count  = local.managed ? 1 : 0
  name   = "${var.name}-valkey"
  family = "valkey8"

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction" # else accepted requests would be thrown away
  }
}

resource "aws_elasticache_user" "default" {
  count         = local.managed ? 1 : 0
  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "valkey"
  access_string = "off -@all"
  authentication_mode {
    type = "no-password-required"
  }
}

resource "aws_elasticache_user" "this" {
  for_each      = local.managed ? local.rights : {}
  user_id       = "${var.name}-${each.key}"
  user_name     = each.key
  engine        = "valkey"
  access_string = "on ${each.value}"
  authentication_mode {
    type      = "password"
    passwords = [var.elasticache_passwords[each.key]]
  }
}

resource "aws_elasticache_user_group" "this" {
  count         = local.managed ? 1 : 0
  user_group_id = var.name
  engine        = "valkey"
  user_ids      = concat([aws_elasticache_user.default[0].user_id], [for user in aws_elasticache_user.this : user.user_id])
}

resource "aws_elasticache_replication_group" "valkey" {
  count                      = local.managed ? 1 : 0
  replication_group_id       = var.name
  description                = "${var.name}: the queue"
  engine                     = "valkey"
  engine_version             = "8.0"
  node_type                  = local.valkey_type
  num_cache_clusters         = 2
  automatic_failover_enabled = true
  multi_az_enabled           = true
  parameter_group_name       = aws_elasticache_parameter_group.valkey[0].name
  subnet_group_name          = aws_elasticache_subnet_group.valkey[0].name
  security_group_ids         = [aws_security_group.valkey.id]
  user_group_ids             = [aws_elasticache_user_group.this[0].user_group_id]
  transit_encryption_enabled = true
  at_rest_encryption_enabled = true
  kms_key_id                 = aws_kms_key.this.arn
  snapshot_retention_limit   = var.backup_days
}
